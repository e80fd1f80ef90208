// A - B + C, shown as a sum of drawings.

import {picture} from './pictures.js';

export function analogy(context) {
  return async function show(card) {
    const [a, b, c] = ['A', 'B', 'C'].map(context.lines);
    const {drawings: [found]} = await context.ask('analogy', {
      ...context.how(), a, b, c,
    });
    const place = (name) => {
      const shown = document.createElement('div');
      shown.className = 'place';
      shown.append(picture(context.drawing(name)));
      return shown;
    };
    const sign = (text) => {
      const shown = document.createElement('span');
      shown.textContent = text;
      return shown;
    };
    card.querySelector('.sum').replaceChildren(
      place('A'), sign('−'), place('B'), sign('+'), place('C'), sign('='),
      context.tile(found, 'A − B + C: put on the paper'));
  };
}
