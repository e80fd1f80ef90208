// Endings that arrive point by point and are shown gradually.
//
// An ending's points are [x, y, pen] in pixels of the model; with pen 1 a line
// ends. The first joins the last line of the drawing if it is where that ends.

import {unitsOf} from './geometry.js';

const reduced = matchMedia('(prefers-reduced-motion: reduce)');
const HURRY = 12;  // Number of frames in which all waiting points are shown.

export class Fan {
  endings = [];  // Each {lines, waiting, open}.
  whole = true;  // True when all points have arrived.
  #changed;
  #frame = 0;

  constructor(changed) {
    this.#changed = changed;
  }

  begin(count, size) {
    this.clear();
    this.whole = false;
    this.size = size;
    this.endings = Array.from(
      {length: count}, () => ({lines: [], waiting: [], open: false}));
  }

  clear() {
    cancelAnimationFrame(this.#frame);
    this.#frame = 0;
    this.endings = [];
    this.whole = true;
  }

  add(points) {
    points.forEach((some, i) => this.endings[i].waiting.push(...some));
    if (reduced.matches) this.reveal(Infinity);
    else this.#frame ||= requestAnimationFrame(() => this.#tick());
  }

  finish() {
    this.whole = true;
    if (!this.#frame) this.#changed();
  }

  // Shows a number of the waiting points of each ending.
  reveal(most) {
    for (const ending of this.endings)
      for (const point of ending.waiting.splice(0, most))
        put(ending, point, unitsOf(this.size));
    this.#changed();
  }

  // True when all points are shown.
  get shown() {
    return this.whole && this.endings.every((it) => !it.waiting.length);
  }

  #tick() {
    const most = Math.max(...this.endings.map((it) => it.waiting.length));
    this.#frame = most > 0 ? requestAnimationFrame(() => this.#tick()) : 0;
    this.reveal(Math.ceil(most / HURRY));
  }
}

function put(ending, [x, y, pen], units) {
  if (!ending.open) ending.lines.push([]);
  ending.lines.at(-1).push([x * units, y * units]);
  ending.open = pen !== 1;
}

// The lines that are visible.
export const visible = (lines) => lines.filter((line) => line.length > 1);
