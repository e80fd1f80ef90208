// Interpolation from A to B: a strip of drawings, and the drawing at the share
// of the way to which the range, or the strip itself, is dragged.

import {latest} from './latest.js';
import {complain} from './notices.js';

const STILL = 6;  // Movement in CSS pixels that is not a drag.

export function interpolation(context, changed) {
  const steps = document.querySelector('#interpolation [name=steps]');
  const share = document.querySelector('#interpolation [name=share]');
  const strip = document.querySelector('#interpolation .strip');
  const place = document.querySelector('#interpolation .passing');
  let seed = 0;  // The same on the way, so that only z changes.
  steps.addEventListener('input', () => changed('B'));

  const ask = (question) => context.ask('interpolate', {
    first: context.lines('A'),
    second: context.lines('B'),
    ...context.how(),
    seed,
    ...question,
  });

  const pass = latest(async () => {
    try {
      const {drawings: [lines]} = await ask({share: share.valueAsNumber});
      place.replaceChildren(
        context.tile(lines, 'Drawing on the way: put on the paper'));
    } catch (error) {
      complain(error);
    }
  });
  share.addEventListener('input', pass);
  drag(strip, (value) => {
    share.value = value;
    share.dispatchEvent(new Event('input', {bubbles: true}));
  });

  return async function show(card) {
    seed = context.how().seed;
    const {drawings} = await ask({steps: steps.valueAsNumber});
    card.querySelector('ol').replaceChildren(...drawings.map((lines, i) => {
      const item = document.createElement('li');
      const label = `Step ${i + 1} of ${drawings.length}: put on the paper`;
      item.append(context.tile(lines, label));
      return item;
    }));
    await pass();
  };
}

// Calls `moved` with the share of its width to which an element is dragged. A
// drag is no click on what it begins at.
function drag(element, moved) {
  let start = null;
  let dragged = false;
  element.addEventListener('pointerdown', (event) => {
    if (event.button !== 0) return;
    start = event.clientX;
    dragged = false;
  });
  element.addEventListener('pointermove', (event) => {
    if (start === null) return;
    if (!dragged && Math.abs(event.clientX - start) < STILL) return;
    if (!dragged) element.setPointerCapture(event.pointerId);
    dragged = true;
    const {left, width} = element.getBoundingClientRect();
    const value = (event.clientX - left) / width;
    moved(Math.min(Math.max(value, 0), 1).toFixed(2));
  });
  for (const type of ['pointerup', 'pointercancel'])
    element.addEventListener(type, () => {
      start = null;
    });
  element.addEventListener('click', (event) => {
    if (!dragged) return;
    dragged = false;
    event.preventDefault();
    event.stopPropagation();
  }, true);
}
