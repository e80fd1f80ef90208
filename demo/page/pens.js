// Strokes by pen, mouse, finger and keyboard.
//
// `listener` has begin(point), extend(points), end() and abandon(); hover(point
// or null) when a pointer passes without drawing; tap(point) when one is put
// down and lifted at the same position; pen(point or null, down): the keyboard.

import {SIDE} from './geometry.js';
import {distance} from './geometry.js';

const STILL = 4;  // Movement in CSS pixels that still counts as a tap.
const NEAR = 1.5;  // Minimum distance between points, in CSS pixels.

export function usePointers(canvas, paper, listener) {
  let down = null;  // {id, type, start, last, drawing}

  const isOurs = (event) => down && event.pointerId === down.id;

  canvas.addEventListener('pointerdown', (event) => {
    if (event.button !== 0) return;
    // A resting hand may touch the paper before the pen.
    if (down && !(down.type === 'touch' && event.pointerType === 'pen')) return;
    if (down?.drawing) listener.abandon();
    canvas.setPointerCapture(event.pointerId);
    const start = paper.locate(event);
    const {pointerId: id, pointerType: type} = event;
    down = {id, type, start, last: start, drawing: false};
  });
  canvas.addEventListener('pointermove', (event) => {
    if (!down && event.pointerType !== 'touch')
      listener.hover(paper.locate(event));
    if (!isOurs(event)) return;
    const unit = paper.unit;
    // All positions since the last frame, if the browser has them.
    const coalesced = event.getCoalescedEvents?.() ?? [];
    const points = [];
    for (const moved of coalesced.length ? coalesced : [event]) {
      const point = paper.locate(moved);
      if (!down.drawing) {
        if (distance(point, down.start) < STILL * unit) continue;
        down.drawing = true;
        listener.begin(down.start);
      }
      if (distance(point, down.last) < NEAR * unit) continue;
      points.push(point);
      down.last = point;
    }
    if (points.length) listener.extend(points);
  });
  canvas.addEventListener('pointerup', (event) => {
    if (!isOurs(event)) return;
    const {drawing, start} = down;
    down = null;
    if (drawing) listener.end();
    else listener.tap(start);
  });
  canvas.addEventListener('pointercancel', (event) => {
    if (!isOurs(event)) return;
    const {drawing} = down;
    down = null;
    if (drawing) listener.abandon();
  });
  // A long press of a finger or pen.
  canvas.addEventListener('contextmenu', (event) => {
    if (down) event.preventDefault();
  });
  canvas.addEventListener('pointerleave', () => listener.hover(null));
}

const ARROWS = {
  ArrowLeft: [-1, 0],
  ArrowRight: [1, 0],
  ArrowUp: [0, -1],
  ArrowDown: [0, 1],
};
const STEP = 20;  // Units.

export function useKeys(canvas, paper, listener) {
  let at = [SIDE / 2, SIDE / 2];
  let down = false;

  function lift(give) {
    if (!down) return;
    down = false;
    if (give) listener.abandon();
    else listener.end();
  }

  canvas.addEventListener('keydown', (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    if (event.key in ARROWS) {
      const step = STEP * (event.shiftKey ? 4 : 1);
      const {left, top, right, bottom} = paper.view;
      const [x, y] = at.map((value, i) => value + ARROWS[event.key][i] * step);
      at = [
        Math.min(Math.max(x, left), right), Math.min(Math.max(y, top), bottom)];
      if (down) listener.extend([at]);
    } else if (event.key === ' ' && !event.repeat) {
      if (down) lift(false);
      else {
        down = true;
        listener.begin(at);
      }
    } else if (event.key === 'Escape') lift(true);
    else if (event.key !== ' ') return;
    event.preventDefault();
    listener.pen(at, down);
  });
  canvas.addEventListener('blur', () => {
    lift(false);
    listener.pen(null, false);
  });
  canvas.addEventListener('focus', () => {
    if (canvas.matches(':focus-visible')) listener.pen(at, down);
  });
  canvas.addEventListener('pointerdown', () => listener.pen(null, false));
}
