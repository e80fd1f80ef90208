// Sketch-RNN as model.py computes it: the encoder, and one step of the decoder.
//
// Arrays are flat: a kernel of `rows` inputs has its outputs in rows, one input
// after the other. A point is stroke-5: [dx, dy, draws, lifts, ends] in units of
// the network.

const POINT = 5;
const EPSILON = 1e-3;  // Of layer normalisation.
const FORGET_BIAS = 1;
const MIN_LOG_SIGMA = -20;

const sigmoid = (x) => 1 / (1 + Math.exp(-x));

function softmax(logits, temperature = 1) {
  const highest = Math.max(...logits);
  const shares = Array.from(
    logits, (x) => Math.exp((x - highest) / temperature));
  const total = shares.reduce((sum, x) => sum + x, 0);
  return shares.map((x) => x / total);
}

// Adds x times the kernel to `sums`.
function multiply(x, kernel, sums) {
  const columns = sums.length;
  for (let i = 0; i < x.length; i++) {
    const factor = x[i];
    if (factor === 0) continue;
    for (let j = 0, k = i * columns; j < columns; j++, k++)
      sums[j] += factor * kernel[k];
  }
}

// Normalises `length` numbers from `start` on, in place.
function normalize(x, start, length, scale, shift, offset = start) {
  let mean = 0;
  for (let i = 0; i < length; i++) mean += x[start + i];
  mean /= length;
  let variance = 0;
  for (let i = 0; i < length; i++) variance += (x[start + i] - mean) ** 2;
  const factor = 1 / Math.sqrt(variance / length + EPSILON);
  for (let i = 0; i < length; i++)
    x[start + i] = (x[start + i] - mean) * factor * scale[offset + i] +
      shift[offset + i];
}

// int16 with one scale for each column -> float32.
function unpack({shape, scales, numbers}) {
  const bytes = Uint8Array.from(atob(numbers), (x) => x.charCodeAt(0));
  const view = new DataView(bytes.buffer);
  const columns = scales.length;
  return {
    shape,
    values: Float32Array.from({length: bytes.length / 2}, (_, i) =>
      view.getInt16(2 * i, true) * scales[i % columns]),
  };
}

class Dense {
  constructor(tensors, name) {
    this.kernel = tensors(`${name}/kernel`).values;
    this.bias = tensors(`${name}/bias`).values;
  }

  apply(x) {
    const sums = Float64Array.from(this.bias);
    multiply(x, this.kernel, sums);
    return sums;
  }
}

// An LSTM, or one with layer normalisation. The state is {c, h}.
class Cell {
  constructor(kind, tensors, name) {
    const numbers = (part) => tensors(`${name}/${part}`)?.values;
    const {shape} = tensors(`${name}/recurrent/kernel`);
    this.units = shape[0];
    this.input = numbers('input/kernel');
    this.bias = numbers('input/bias') ?? new Float32Array(shape[1]);
    this.constant = numbers('constant_input/kernel');
    this.recurrent = numbers('recurrent/kernel');
    if (kind === 'layer_norm')
      this.norms = Object.fromEntries(
        ['gates_scale', 'gates_bias', 'memory_scale', 'memory_bias'].map(
          (part) => [part, numbers(part)]));
  }

  start() {
    return {c: new Float64Array(this.units), h: new Float64Array(this.units)};
  }

  // The part of the gates that is the same at all points.
  projectConstant(x) {
    const sums = new Float64Array(4 * this.units);
    if (x.length) multiply(x, this.constant, sums);
    return sums;
  }

  step({c, h}, point, projected) {
    const {units, norms} = this;
    const gates = Float64Array.from(this.bias);
    multiply(point, this.input, gates);
    multiply(h, this.recurrent, gates);
    if (projected)
      for (let i = 0; i < gates.length; i++) gates[i] += projected[i];
    if (norms)
      for (let gate = 0; gate < 4; gate++)
        normalize(
          gates, gate * units, units, norms.gates_scale, norms.gates_bias);
    const memory = new Float64Array(units);
    for (let i = 0; i < units; i++)
      memory[i] = sigmoid(gates[units + i] + FORGET_BIAS) * c[i] +
        sigmoid(gates[i]) * Math.tanh(gates[2 * units + i]);
    const read = Float64Array.from(memory);
    if (norms)
      normalize(read, 0, units, norms.memory_scale, norms.memory_bias);
    const hidden = new Float64Array(units);
    for (let i = 0; i < units; i++)
      hidden[i] = sigmoid(gates[3 * units + i]) * Math.tanh(read[i]);
    return {c: memory, h: hidden};
  }
}

class Network {
  // `model` is what static_page.py writes.
  constructor(model) {
    const unpacked = new Map(Object.entries(model.tensors).map(
      ([name, tensor]) => [name, unpack(tensor)]));
    const tensors = (name) => unpacked.get(name);
    Object.assign(this, model.arguments);
    this.decoder_cell = new Cell(this.decoder, tensors, 'decoder_cell');
    this.output = new Dense(tensors, 'output');
    if (!this.conditional) return;
    this.forward_cell = new Cell(this.encoder, tensors, 'forward_cell');
    this.backward_cell = new Cell(this.encoder, tensors, 'backward_cell');
    for (const name of ['mean', 'presigma', 'initial_state'])
      this[name] = new Dense(tensors, name);
    const zeros = new Float32Array(this.latent);
    this.priorMean = tensors('prior_mean')?.values ?? zeros;
    this.priorLogDeviation = tensors('prior_log_deviation')?.values ?? zeros;
  }

  // The distribution of z, for points without start and end: {mean, sigma}.
  encode(points) {
    const read = (cell, some) => some.reduce(
      (state, point) => cell.step(state, point), cell.start()).h;
    const final = [
      ...read(this.forward_cell, points),
      ...read(this.backward_cell, points.toReversed()),
    ];
    const shrunk = this.priorLogDeviation.map((x) => Math.exp(-x));
    return {
      mean: Array.from(this.mean.apply(final), (x, i) =>
        (x - this.priorMean[i]) * shrunk[i]),
      sigma: Array.from(this.presigma.apply(final), (x, i) =>
        Math.exp(x / 2) * shrunk[i]),
    };
  }

  // The decoder before the first point. `z` of a conditional model; `label`, an
  // index, of one with classes.
  start(z, label) {
    const constant = [];
    if (this.conditional)
      constant.push(...z.map((x, i) =>
        this.priorMean[i] + Math.exp(this.priorLogDeviation[i]) * x));
    for (let i = 0; i < this.num_classes; i++)
      constant.push(i === label ? 1 : 0);
    const cell = this.decoder_cell;
    let state = cell.start();
    if (this.conditional) {
      const both = this.initial_state.apply(constant).map(Math.tanh);
      state = {c: both.slice(0, cell.units), h: both.slice(cell.units)};
    }
    return {state, projected: cell.projectConstant(constant)};
  }

  // Reads a point; returns the decoder after it and the mixture of the next.
  step({state, projected}, point) {
    const next = this.decoder_cell.step(state, point, projected);
    const raw = this.output.apply(next.h);
    const part = (i) => Array.from(
      raw.subarray(3 + i * this.mixtures, 3 + (i + 1) * this.mixtures));
    const sigma = (i) => part(i).map(
      (x) => Math.exp(Math.max(x, MIN_LOG_SIGMA)));
    return {
      decoder: {state: next, projected},
      mixture: {
        penLogits: Array.from(raw.subarray(0, 3)),
        logits: part(0),
        meanX: part(1),
        meanY: part(2),
        sigmaX: sigma(3),
        sigmaY: sigma(4),
        rho: part(5).map(Math.tanh),
      },
    };
  }
}
