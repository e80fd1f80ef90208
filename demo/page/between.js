// Latent-space operations on whole drawings. The parts send requests one after
// the other, and each shows the answer to its last request.

import {analogy} from './analogy.js';
import {ask} from './api.js';
import {dimensions} from './dimensions.js';
import {toPaper} from './geometry.js';
import {toPixels} from './geometry.js';
import {interpolation} from './interpolation.js';
import {latest} from './latest.js';
import {complain} from './notices.js';
import {forgive} from './notices.js';
import {byModel} from './pictures.js';
import {picture} from './pictures.js';
import {showValues} from './settings.js';
import {Slots} from './slots.js';

// `paper` has current(), the lines on it, and put(lines).
export function between(settings, paper) {
  const panel = document.getElementById('between');
  const slots = new Slots(
    panel.querySelector('.slots'), () => paper.current(), update);
  showValues(panel);

  const context = {
    filled: (names) => [...names].every((name) => slots.get(name)),

    // The lines in a slot, in the units of the model.
    lines: (name) => toPixels(
      slots.get(name).map(({points}) => points), settings.model.size),

    how: () => settings.how,

    drawing: (name) => slots.get(name),

    // The answer, with its drawings converted to lines on the paper.
    async ask(name, question) {
      const {size} = settings.model;
      const answer = await ask(name, {...settings.who, ...question});
      return {
        ...answer,
        drawings: answer.drawings?.map((lines) =>
          byModel(toPaper(lines, size))),
      };
    },

    // A button with a drawing, which is put on the paper when clicked.
    tile(lines, label) {
      const tile = document.createElement('button');
      tile.type = 'button';
      tile.className = 'tile';
      tile.setAttribute('aria-label', label);
      tile.title = 'Put it on the paper';
      tile.append(picture(lines));
      tile.addEventListener('click', () => {
        if (lines.length) paper.put(lines);
      });
      return tile;
    },
  };

  // A part of the panel: `show` sends a request and fills the hidden result.
  function part(name, needs, show) {
    const card = document.getElementById(name);
    const it = {
      needs,
      lost: false,
      refresh: latest(async () => {
        it.lost = false;
        if (panel.hidden || !context.filled(needs)) return;
        card.setAttribute('aria-busy', 'true');
        try {
          await show(card);
          card.querySelector('.waiting').hidden = true;
          card.querySelector('.waiting + *').hidden = false;
          forgive();
        } catch (error) {
          it.lost = error.status === 0;
          complain(error);
        } finally {
          card.setAttribute('aria-busy', 'false');
        }
      }),
    };
    return it;
  }

  const parts = [
    part('interpolation', 'AB', interpolation(context, update)),
    part('analogy', 'ABC', analogy(context)),
    part('dimensions', 'A', dimensions(context)),
  ];

  function update(name) {
    for (const {needs, refresh} of parts)
      if (!name || needs.includes(name)) refresh();
  }

  let model = null;
  return {
    // Called when a model was chosen.
    offer() {
      panel.hidden = !settings.model?.latent;
      if (settings.model !== model) update();
      model = settings.model;
    },
    again: () => update(),
    // Repeats the requests that failed when the server was lost.
    resume() {
      for (const it of parts) if (it.lost) it.refresh();
    },
    arrange: () => slots.enable(paper.current().length > 0),
  };
}
