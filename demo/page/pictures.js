// Small drawings, as SVG.

import {frame} from './geometry.js';
import {round} from './geometry.js';

const SVG = 'http://www.w3.org/2000/svg';

export function path(line) {
  return 'M' + line.map(([x, y]) => `${round(x)} ${round(y)}`).join('L');
}

// Takes lines {author, points}.
export function picture(lines) {
  const box = frame(lines.map(({points}) => points));
  const svg = document.createElementNS(SVG, 'svg');
  svg.setAttribute('viewBox', `${box.x} ${box.y} ${box.width} ${box.height}`);
  svg.setAttribute('class', 'drawn');
  svg.setAttribute('aria-hidden', 'true');
  for (const author of ['person', 'model']) {
    const d = lines.filter((line) => line.author === author)
      .map(({points}) => path(points)).join('');
    if (!d) continue;
    const drawn = document.createElementNS(SVG, 'path');
    drawn.setAttribute('class', author);
    drawn.setAttribute('d', d);
    svg.append(drawn);
  }
  return svg;
}

export const byModel = (lines) =>
  lines.filter((line) => line.length > 1)
    .map((points) => ({author: 'model', points}));
