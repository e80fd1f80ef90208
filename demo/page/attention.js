// Where the model looked, as captioning/figures.py shades: the brighter, the
// more weight. What it did not see at all is dark.

const LARGEST = 800;  // Pixels of the longer side.
const DARK = 0.35;

// Pillow's bicubic kernel (Keys 1981, a = -0.5).
function bicubic(x) {
  x = Math.abs(x);
  if (x < 1) return (1.5 * x - 2.5) * x * x + 1;
  if (x < 2) return ((-0.5 * x + 2.5) * x - 4) * x + 2;
  return 0;
}

// For each of `size` pixels, the weights of `count` cells.
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

// Weights of rows * columns cells -> those of pixels, 1 at the most.
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

// The rectangle that the model saw, in pixels of a canvas.
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

// The picture as it is, but for what the model did not see.
export function showWhole(canvas, shown) {
  const context = canvas.getContext('2d', {willReadFrequently: true});
  const {left, top, width, height} = seen(canvas, shown);
  context.clearRect(0, 0, canvas.width, canvas.height);
  context.fillStyle = `rgb(0 0 0 / ${1 - DARK})`;
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.clearRect(left, top, width, height);
}

// The picture in the light of a word's weights, f[rows * columns].
export function showWeights(canvas, picture, shown, {rows, columns}, weights) {
  const context = canvas.getContext('2d', {willReadFrequently: true});
  const {left, top, width, height} = seen(canvas, shown);
  context.globalAlpha = 1;
  context.drawImage(picture, 0, 0, canvas.width, canvas.height);
  const pixels = context.getImageData(left, top, width, height);
  showWhole(canvas, shown);
  const data = pixels.data;
  heatOf(weights, rows, columns, width, height).forEach((heat, i) => {
    const grey = (data[4 * i] + data[4 * i + 1] + data[4 * i + 2]) / 3;
    for (let c = 4 * i; c < 4 * i + 3; c++)
      data[c] = DARK * grey + (1 - DARK) * heat * data[c];
  });
  context.putImageData(pixels, left, top);
}

// In words, for who does not see it.
export function place({rows, columns}, weights) {
  const most = weights.indexOf(Math.max(...weights));
  const row = Math.floor(most / columns) + 1;
  const column = most % columns + 1;
  return `row ${row} of ${rows}, column ${column} of ${columns}`;
}
