// Points [x, y] on the paper, and lines, which are lists of them.

// Side of the central square of the paper, in its units.
export const SIDE = 1000;

// Units per pixel of a model whose drawings fill a square of `size` pixels.
// It leaves a margin around a drawing.
export const unitsOf = (size) => 0.8 * SIDE / size;

// Converts lines from the paper to pixels of the model, and back.
export const toPixels = (lines, size) => scale(lines, 1 / unitsOf(size));
export const toPaper = (lines, size) => scale(lines, unitsOf(size));

// Moves lines to the middle of the paper.
export function centred(lines) {
  if (!lines.length) return lines;
  const {x, y, width, height} = frame(lines, 0);
  const [dx, dy] = [(SIDE - width) / 2 - x, (SIDE - height) / 2 - y];
  return lines.map((line) =>
    line.map(([u, v]) => [round(u + dx), round(v + dy)]));
}

function scale(lines, factor) {
  return lines.map((line) =>
    line.map(([x, y]) => [round(x * factor), round(y * factor)]));
}

export const round = (x) => Math.round(x * 1000) / 1000;

export const distance = ([x, y], [u, v]) => Math.hypot(x - u, y - v);

export function length(line) {
  let sum = 0;
  for (let i = 1; i < line.length; i++) sum += distance(line[i - 1], line[i]);
  return sum;
}

// Distance from a point to the nearest point of a line.
export function distanceToLine(point, line) {
  let least = Infinity;
  for (let i = 1; i < line.length; i++) {
    const [[ax, ay], [bx, by]] = [line[i - 1], line[i]];
    const [dx, dy] = [bx - ax, by - ay];
    const along = ((point[0] - ax) * dx + (point[1] - ay) * dy) /
      (dx * dx + dy * dy || 1);
    const t = Math.min(Math.max(along, 0), 1);
    least = Math.min(least, distance(point, [ax + t * dx, ay + t * dy]));
  }
  return least;
}

// {x, y, width, height} of a square around lines; the whole paper if empty.
export function frame(lines, margin = 0.08) {
  const points = lines.flat();
  if (!points.length) return {x: 0, y: 0, width: SIDE, height: SIDE};
  const [left, top] = [0, 1].map((axis) => points.reduce(
    (least, point) => Math.min(least, point[axis]), Infinity));
  const [right, bottom] = [0, 1].map((axis) => points.reduce(
    (most, point) => Math.max(most, point[axis]), -Infinity));
  const side = Math.max(right - left, bottom - top, SIDE / 20) *
    (1 + 2 * margin);
  return {
    x: round((left + right - side) / 2),
    y: round((top + bottom - side) / 2),
    width: round(side),
    height: round(side),
  };
}
