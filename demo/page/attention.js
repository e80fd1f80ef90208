// Shades an image by attention, as captioning/figures.py does: the brighter,
// the more weight. Pixels outside the crop of the model are dark.

const LARGEST = 800;  // Pixels of the longer side.
const DARK = 0.35;

// Pillow's bicubic kernel (Keys 1981, a = -0.5).
function bicubic(x) {
  x = Math.abs(x);
  if (x < 1) return (1.5 * x - 2.5) * x * x + 1;
  if (x < 2) return ((-0.5 * x + 2.5) * x - 4) * x + 2;
  return 0;
}

// Weights of `count` cells for each of `size` pixels.
function taps(size, count) {
  const scale = count / size;
  const reach = Math.max(scale, 1);
  return Array.from({length: size}, (_, pixel) => {
    const center = (pixel + 0.5) * scale;
    const row = Array.from({length: count}, (_, cell) =>
      bicubic((cell + 0.5 - center) / reach));
    const sum = row.reduce((a, b) => a + b, 0);
    return row.map((weight) => weight / sum);
  });
}

// Resizes the weights of rows * columns cells to pixels, with maximum 1.
function heatOf(weights, rows, columns, width, height) {
  const across = taps(width, columns);
  const down = taps(height, rows);
  const wide = new Float32Array(rows * width);
  for (let y = 0; y < rows; y++)
    for (let x = 0; x < width; x++)
      for (let cell = 0; cell < columns; cell++)
        wide[y * width + x] += across[x][cell] * weights[y * columns + cell];
  const heat = new Float32Array(height * width);
  let most = 1e-9;
  for (let y = 0; y < height; y++)
    for (let x = 0; x < width; x++) {
      let sum = 0;
      for (let cell = 0; cell < rows; cell++)
        sum += down[y][cell] * wide[cell * width + x];
      // Bicubic overshoots below zero at sharp peaks.
      heat[y * width + x] = Math.max(sum, 0);
      most = Math.max(most, sum);
    }
  return heat.map((value) => value / most);
}

// matplotlib's 'inferno', as in captioning/figures.py.
const HEAT = [
  [0, 0, 4], [11, 7, 36], [33, 12, 74], [61, 9, 101], [87, 16, 110],
  [113, 25, 110], [138, 34, 106], [163, 44, 97], [188, 55, 84], [210, 70, 68],
  [228, 90, 49], [241, 115, 29], [249, 142, 9], [252, 172, 17], [249, 203, 53],
  [242, 234, 105], [252, 255, 164],
];
// The share of the heat; the rest is the image in greys.
const COLDEST = 0.2, HOTTEST = 0.6;

// Lays heat in 0..1 over RGBA pixels in greys.
function colour(data, heats) {
  heats.forEach((heat, i) => {
    const grey = (data[4 * i] + data[4 * i + 1] + data[4 * i + 2]) / 3;
    const share = COLDEST + (HOTTEST - COLDEST) * heat;
    const at = heat * (HEAT.length - 1);
    const below = Math.min(Math.floor(at), HEAT.length - 2);
    for (let c = 0; c < 3; c++) {
      const hot = HEAT[below][c]
        + (at - below) * (HEAT[below + 1][c] - HEAT[below][c]);
      data[4 * i + c] = (1 - share) * grey + share * hot;
    }
  });
}

// The crop that the model read, in pixels of a canvas.
function seen(canvas, shown) {
  const left = Math.round(shown.x * canvas.width);
  const top = Math.round(shown.y * canvas.height);
  const right = Math.round((shown.x + shown.width) * canvas.width);
  const bottom = Math.round((shown.y + shown.height) * canvas.height);
  return {left, top, width: right - left, height: bottom - top};
}

export function fit(canvas, picture) {
  const {naturalWidth: width, naturalHeight: height} = picture;
  const factor = Math.min(LARGEST / Math.max(width, height), 1);
  canvas.width = Math.max(Math.round(width * factor), 1);
  canvas.height = Math.max(Math.round(height * factor), 1);
}

// Draws the image, darkened outside the crop.
export function showWhole(canvas, shown) {
  const context = canvas.getContext('2d', {willReadFrequently: true});
  const {left, top, width, height} = seen(canvas, shown);
  context.clearRect(0, 0, canvas.width, canvas.height);
  context.fillStyle = `rgb(0 0 0 / ${1 - DARK})`;
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.clearRect(left, top, width, height);
}

// Draws the image shaded by the weights of a word, f[rows * columns].
export function showWeights(canvas, picture, shown, {rows, columns}, weights) {
  const context = canvas.getContext('2d', {willReadFrequently: true});
  const {left, top, width, height} = seen(canvas, shown);
  context.globalAlpha = 1;
  context.drawImage(picture, 0, 0, canvas.width, canvas.height);
  const pixels = context.getImageData(left, top, width, height);
  showWhole(canvas, shown);
  colour(pixels.data, heatOf(weights, rows, columns, width, height));
  context.putImageData(pixels, left, top);
}

// Describes the shading in words, for screen readers.
export function place({rows, columns}, weights) {
  const most = weights.indexOf(Math.max(...weights));
  const row = Math.floor(most / columns) + 1;
  const column = most % columns + 1;
  return `row ${row} of ${rows}, column ${column} of ${columns}`;
}
