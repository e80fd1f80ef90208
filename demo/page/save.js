// Saves a drawing as SVG or PNG, on white paper in every colour scheme.

import {frame} from './geometry.js';
import {path} from './pictures.js';

const PIXELS = 1200;  // Width and height of a PNG.
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

// A Blob; the arguments are those of `toSvg`.
export function toPng(lines, endings) {
  const box = frame(
    [...lines.map(({points}) => points), ...endings.flat()], 0.05);
  const canvas = document.createElement('canvas');
  canvas.width = canvas.height = PIXELS;
  const context = canvas.getContext('2d');
  context.fillStyle = 'white';
  context.fillRect(0, 0, PIXELS, PIXELS);
  const scale = PIXELS / box.width;
  context.setTransform(scale, 0, 0, scale, -box.x * scale, -box.y * scale);
  context.lineCap = context.lineJoin = 'round';
  context.lineWidth = box.width / 200;
  for (const {author, points} of lines) {
    context.strokeStyle = COLORS[author];
    context.stroke(new Path2D(path(points)));
  }
  context.strokeStyle = COLORS.model;
  context.globalAlpha = 0.5;
  for (const ending of endings)
    context.stroke(new Path2D(ending.map(path).join('')));
  return new Promise((resolve) => canvas.toBlob(resolve, 'image/png'));
}

function escape(text) {
  return text.replace(/[&<>]/g, (letter) => `&#${letter.charCodeAt(0)};`);
}

export function download(blob, name) {
  const link = document.createElement('a');
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href));
}
