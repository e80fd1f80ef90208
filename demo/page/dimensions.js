// The latent vector of A: its dimensions as ranges, decoded as they move.

import {latest} from './latest.js';
import {complain} from './notices.js';

const SHOWN = 12;  // Number of dimensions: those with the smallest σ.
const REACH = 3;  // Standard deviations of the prior, either way.

export function dimensions(context) {
  const card = document.getElementById('dimensions');
  const decoded = card.querySelector('.decoded');
  const list = card.querySelector('ul');
  const recenter = document.getElementById('recenter');
  let mean = [];
  let z = [];
  let seed = 0;  // The same while ranges move, so that only z changes.

  const decode = latest(async () => {
    try {
      const {drawings: [lines]} =
        await context.ask('decode', {...context.how(), z: [z], seed});
      decoded.replaceChildren(
        context.tile(lines, 'Decoded drawing: put on the paper'));
    } catch (error) {
      complain(error);
    }
  });

  function range(dimension, sigma) {
    const item = document.createElement('li');
    const label = document.createElement('label');
    const input = document.createElement('input');
    const output = document.createElement('output');
    label.className = 'slider';
    label.title = `σ = ${sigma.toFixed(2)}`;
    Object.assign(input, {
      type: 'range',
      min: Math.min(-REACH, mean[dimension]),
      max: Math.max(REACH, mean[dimension]),
      step: 'any',
    });
    const show = () => {
      input.value = z[dimension];
      output.textContent = z[dimension].toFixed(2).replace('-', '−');
    };
    input.addEventListener('input', () => {
      z[dimension] = input.valueAsNumber;
      show();
      decode();
    });
    label.append(`z ${dimension + 1}`, input, output);
    item.append(label);
    item.show = show;
    show();
    return item;
  }

  recenter.disabled = true;
  recenter.addEventListener('click', () => {
    z = [...mean];
    for (const item of list.children) item.show();
    decode();
  });

  return async function show() {
    const {sigma, ...answer} =
      await context.ask('encode', {lines: context.lines('A')});
    mean = answer.mean;
    z = [...mean];
    seed = Math.floor(Math.random() * 2 ** 31);
    const order = sigma.map((_, i) => i).sort((i, j) => sigma[i] - sigma[j]);
    list.replaceChildren(
      ...order.slice(0, SHOWN).map((i) => range(i, sigma[i])));
    recenter.disabled = false;
    await decode();
  };
}
