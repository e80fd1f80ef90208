// Three slots for drawings: A, B and C.

import {picture} from './pictures.js';

const NAMES = ['A', 'B', 'C'];

export class Slots {
  #kept = {};
  #buttons = [];

  // `current` returns the drawing on the paper; calls `changed` with a name.
  constructor(list, current, changed) {
    for (const name of NAMES) {
      const item = document.createElement('li');
      const title = document.createElement('h3');
      title.textContent = name;
      const place = document.createElement('div');
      place.className = 'place';
      const button = document.createElement('button');
      button.type = 'button';
      button.className = 'small';
      button.textContent = 'Use drawing';
      button.setAttribute('aria-label', `Use drawing as ${name}`);
      button.addEventListener('click', () => {
        this.#kept[name] = current();
        place.replaceChildren(picture(this.#kept[name]));
        changed(name);
      });
      this.#buttons.push(button);
      item.append(title, place, button);
      list.append(item);
    }
  }

  get(name) {
    return this.#kept[name];
  }

  enable(possible) {
    for (const button of this.#buttons) button.disabled = !possible;
  }
}
