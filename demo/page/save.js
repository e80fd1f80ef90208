// Saves a drawing as an SVG file, on white paper in every colour scheme.

import {frame} from './geometry.js';
import {path} from './pictures.js';

const COLORS = {person: '#3457d5', model: '#c8410b'};

// `lines` are {author, points}; `endings`, lists of lines, are drawn over them.
export function toSvg(lines, endings, title) {
  const box = frame(
    [...lines.map(({points}) => points), ...endings.flat()], 0.05);
  const width = (box.width / 200).toFixed(2);
  const drawn = lines.map(({author, points}) =>
    `<path class="${author}" stroke="${COLORS[author]}" d="${path(points)}"/>`);
  const overlaid = endings.map((ending) =>
    `<path class="ending" stroke="${COLORS.model}" stroke-opacity="0.5" ` +
    `d="${ending.map(path).join('')}"/>`);
  return [
    '<svg xmlns="http://www.w3.org/2000/svg" width="600" height="600" ' +
      `viewBox="${box.x} ${box.y} ${box.width} ${box.height}">`,
    `<title>${escape(title)}</title>`,
    `<g fill="none" stroke-width="${width}" stroke-linecap="round" ` +
      'stroke-linejoin="round">',
    ...drawn,
    ...overlaid,
    '</g>',
    '</svg>',
    '',
  ].join('\n');
}

function escape(text) {
  return text.replace(/[&<>]/g, (letter) => `&#${letter.charCodeAt(0)};`);
}

export function download(text, name) {
  const link = document.createElement('a');
  link.href = URL.createObjectURL(new Blob([text], {type: 'image/svg+xml'}));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href));
}
