// The paper: a canvas of any size, whose central square is SIDE units wide.

import {SIDE} from './geometry.js';

const dark = matchMedia('(prefers-color-scheme: dark)');

export class Paper {
  #canvas;
  #context;
  #render;
  #asked = 0;
  #scale = 1;  // Pixels of the canvas per unit.
  #origin = [0, 0];  // In pixels of the canvas.
  #colors = {};

  // Calls `render` with the paper when it must be drawn.
  constructor(canvas, render) {
    this.#canvas = canvas;
    this.#context = canvas.getContext('2d');
    this.#render = render;
    new ResizeObserver(() => this.#resize()).observe(canvas);
    dark.addEventListener('change', () => this.#resize());
    this.#resize();
  }

  // Requests a redraw in the next frame.
  refresh() {
    this.#asked ||= requestAnimationFrame(() => this.#draw());
  }

  // The position of a pointer, in units.
  locate({clientX, clientY}) {
    const box = this.#canvas.getBoundingClientRect();
    const ratio = this.#canvas.width / box.width;
    return [
      ((clientX - box.left) * ratio - this.#origin[0]) / this.#scale,
      ((clientY - box.top) * ratio - this.#origin[1]) / this.#scale,
    ];
  }

  // Units per CSS pixel.
  get unit() {
    return this.#canvas.width / this.#canvas.clientWidth / this.#scale;
  }

  // The visible area, in units.
  get view() {
    const [x, y] = this.#origin.map((origin) => -origin / this.#scale);
    return {
      left: x,
      top: y,
      right: x + this.#canvas.width / this.#scale,
      bottom: y + this.#canvas.height / this.#scale,
    };
  }

  line(points, {author, opacity = 1, width = 3.2}) {
    if (points.length < 2) return;
    const context = this.#context;
    context.globalAlpha = opacity;
    context.strokeStyle = this.#colors[author];
    context.lineWidth = width * this.unit;
    context.beginPath();
    context.moveTo(...points[0]);
    for (const point of points) context.lineTo(...point);
    context.stroke();
  }

  // Draws the pen that the keyboard moves, filled when it is down.
  pen([x, y], down) {
    const context = this.#context;
    context.globalAlpha = 1;
    context.strokeStyle = context.fillStyle = this.#colors.person;
    context.lineWidth = 2 * this.unit;
    context.beginPath();
    context.arc(x, y, 7 * this.unit, 0, 2 * Math.PI);
    if (down) context.fill();
    context.stroke();
    context.beginPath();
    for (const [dx, dy] of [[1, 0], [-1, 0], [0, 1], [0, -1]]) {
      context.moveTo(x + 7 * dx * this.unit, y + 7 * dy * this.unit);
      context.lineTo(x + 13 * dx * this.unit, y + 13 * dy * this.unit);
    }
    context.stroke();
  }

  #resize() {
    const {clientWidth, clientHeight} = this.#canvas;
    if (!clientWidth) return;  // The room is hidden.
    const ratio = devicePixelRatio || 1;
    this.#canvas.width = Math.round(clientWidth * ratio);
    this.#canvas.height = Math.round(clientHeight * ratio);
    const side = Math.min(this.#canvas.width, this.#canvas.height);
    this.#scale = side / SIDE;
    this.#origin = [
      (this.#canvas.width - side) / 2, (this.#canvas.height - side) / 2];
    const style = getComputedStyle(this.#canvas);
    for (const author of ['person', 'model'])
      this.#colors[author] = style.getPropertyValue(`--${author}`).trim();
    this.#draw();
  }

  #draw() {
    cancelAnimationFrame(this.#asked);
    this.#asked = 0;
    const context = this.#context;
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, this.#canvas.width, this.#canvas.height);
    context.setTransform(this.#scale, 0, 0, this.#scale, ...this.#origin);
    context.lineCap = context.lineJoin = 'round';
    this.#render(this);
  }
}
