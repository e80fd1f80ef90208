// Replays a drawing at an even pace; line by line with reduced motion.

import {distance} from './geometry.js';
import {length} from './geometry.js';

const reduced = matchMedia('(prefers-reduced-motion: reduce)');
const SPEED = 0.9;  // Units per millisecond.
const LONGEST = 8000;  // Maximum duration, in milliseconds.
const PAUSE = 500;  // Milliseconds between lines, with reduced motion.

// Calls `draw` with the lines so far, and with null at the end. Returns a
// function that stops the replay.
export function replay(lines, draw) {
  const total = lines.reduce((sum, {points}) => sum + length(points), 0);
  const speed = Math.max(SPEED, total / LONGEST);
  const start = performance.now();
  let frame = requestAnimationFrame(show);

  function show(now) {
    const past = Math.max(now - start, 0);
    const so_far = reduced.matches
      ? lines.slice(0, Math.floor(past / PAUSE) + 1)
      : cut(lines, past * speed);
    const finished = reduced.matches
      ? past > PAUSE * lines.length
      : past * speed >= total;
    draw(finished ? null : so_far);
    if (!finished) frame = requestAnimationFrame(show);
  }

  return () => cancelAnimationFrame(frame);
}

// The first `rest` units of lines.
function cut(lines, rest) {
  const kept = [];
  for (const {author, points} of lines) {
    const part = [points[0]];
    for (let i = 1; i < points.length && rest > 0; i++) {
      const step = distance(points[i - 1], points[i]);
      const share = Math.min(rest / (step || 1), 1);
      part.push(points[i].map((to, axis) =>
        points[i - 1][axis] + share * (to - points[i - 1][axis])));
      rest -= step;
    }
    kept.push({author, points: part});
    if (rest <= 0) break;
  }
  return kept;
}
