// The endings side by side, as buttons that keep one; or whole drawings, as
// buttons that put one on the paper.

import {byModel} from './pictures.js';
import {picture} from './pictures.js';

export class Endings {
  #card;
  #list;
  #listener;

  // `listener` has choose(i or null) and keep(i).
  constructor(card, listener) {
    this.#card = card;
    this.#list = card.querySelector('ul');
    this.#listener = listener;
    const at = ({target}) => {
      const button = target.closest?.('button');
      return button ? [...this.#buttons].indexOf(button) : null;
    };
    for (const type of ['pointerover', 'focusin'])
      this.#list.addEventListener(type, (event) => listener.choose(at(event)));
    for (const type of ['pointerleave', 'focusout'])
      this.#list.addEventListener(type, () => listener.choose(null));
    this.#list.addEventListener('click', (event) => {
      const i = at(event);
      if (i !== null) listener.keep(i);
    });
  }

  get #buttons() {
    return this.#list.querySelectorAll('button');
  }

  // Hidden in other modes.
  set offered(value) {
    this.#card.hidden = !value;
  }

  begin(count, whole = false) {
    this.#fill(true);
    const [title, hint] = this.#card.querySelector('h2').childNodes;
    title.textContent = whole ? 'Drawings ' : 'Endings ';
    hint.textContent =
      whole ? 'choose one to put it on the paper' : 'choose one to keep it';
    const verb = whole ? 'Take drawing' : 'Keep ending';
    this.#list.replaceChildren(...Array.from({length: count}, (_, i) => {
      const button = document.createElement('button');
      button.type = 'button';
      button.className = 'tile';
      button.setAttribute('aria-label', `${verb} ${i + 1} of ${count}`);
      const item = document.createElement('li');
      item.append(button);
      return item;
    }));
  }

  show(lines, endings) {
    this.#buttons.forEach((button, i) => button.replaceChildren(
      picture([...lines, ...byModel(endings[i].lines)])));
  }

  showWhole(drawings) {
    this.#buttons.forEach((button, i) =>
      button.replaceChildren(picture(drawings[i])));
  }

  mark(chosen) {
    this.#buttons.forEach((button, i) =>
      button.classList.toggle('chosen', i === chosen));
  }

  clear() {
    // Returns the focus to the paper after a choice by keyboard.
    const focused = this.#list.contains(document.activeElement);
    this.#fill(false);
    this.#list.replaceChildren();
    if (focused) document.getElementById('paper').focus();
  }

  #fill(value) {
    this.#list.hidden = !value;
    this.#card.querySelector('.waiting').hidden = value;
  }
}
