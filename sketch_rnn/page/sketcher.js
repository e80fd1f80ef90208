// Samples, completes and encodes drawings in pixels; see inference.py.
//
// A drawing is a list of lines, and a line a list of points [x, y]. A seed gives
// the same drawing again.

const START = [0, 0, 1, 0, 0];
const TOLERANCE = 2;  // Of simplified lines, in pixels, as in strokes.py.

// Uniform numbers from 0 to 1 (mulberry32), and normal ones.
class Random {
  #state;

  constructor(seed) {
    this.#state = seed >>> 0;
  }

  uniform() {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0;
    let x = this.#state;
    x = Math.imul(x ^ (x >>> 15), x | 1);
    x ^= x + Math.imul(x ^ (x >>> 7), x | 61);
    return ((x ^ (x >>> 14)) >>> 0) / 2 ** 32;
  }

  normal() {
    const radius = Math.sqrt(-2 * Math.log(1 - this.uniform()));
    return radius * Math.cos(2 * Math.PI * this.uniform());
  }

  choose(shares) {
    let left = this.uniform();
    for (let i = 0; i < shares.length; i++)
      if ((left -= shares[i]) < 0) return i;
    return shares.length - 1;
  }
}

function distance([x, y], [ax, ay], [bx, by]) {
  const [dx, dy] = [bx - ax, by - ay];
  const along = ((x - ax) * dx + (y - ay) * dy) / (dx * dx + dy * dy || 1);
  const t = Math.min(Math.max(along, 0), 1);
  return Math.hypot(x - ax - t * dx, y - ay - t * dy);
}

// Ramer-Douglas-Peucker.
function simplify(line, tolerance = TOLERANCE) {
  let [farthest, at] = [tolerance, 0];
  for (let i = 1; i < line.length - 1; i++) {
    const far = distance(line[i], line[0], line.at(-1));
    if (far > farthest) [farthest, at] = [far, i];
  }
  if (!at) return line.length > 1 ? [line[0], line.at(-1)] : line;
  return [
    ...simplify(line.slice(0, at + 1), tolerance).slice(0, -1),
    ...simplify(line.slice(at), tolerance),
  ];
}

// Lines in pixels -> stroke-5 in units of `scale` pixels; the first point has
// no row.
function toRows(lines, scale) {
  const rows = [];
  let before = null;
  for (const line of lines)
    line.forEach((point, i) => {
      const lifted = i === line.length - 1 ? 1 : 0;
      if (before || lifted) {
        const [x, y] = before ?? point;
        rows.push([
          (point[0] - x) / scale, (point[1] - y) / scale, 1 - lifted, lifted,
          0]);
      }
      before = point;
    });
  return rows;
}

// The spherical path from a to b, as in latent.py.
function slerp(a, b, share) {
  const product = (u, v) => u.reduce((sum, x, i) => sum + x * v[i], 0);
  const norms = Math.sqrt(product(a, a) * product(b, b));
  const cosine = norms ? product(a, b) / norms : 1;
  const angle = Math.acos(Math.min(Math.max(cosine, -1), 1));
  const sine = Math.sin(angle);
  const [p, q] = norms && sine > 1e-7
    ? [Math.sin((1 - share) * angle) / sine, Math.sin(share * angle) / sine]
    : [1 - share, share];
  return a.map((x, i) => p * x + q * b[i]);
}

class Sketcher {
  constructor(model) {
    this.network = new Network(model);
    this.scale = model.scale;
    this.length = model.length;
    this.size = model.size;
    this.categories = model.categories;
  }

  // Simplified rows of lines; they leave room for one point at least.
  rows(lines) {
    for (let tolerance = TOLERANCE; ; tolerance *= 1.5) {
      const simple = lines.map((line) => simplify(line, tolerance));
      const rows = toRows(simple, this.scale);
      if (rows.length < this.length || tolerance > 1000)
        return rows.slice(0, this.length - 1);
    }
  }

  prior(random) {
    if (!this.network.conditional) return null;
    return Array.from({length: this.network.latent}, () => random.normal());
  }

  // {mean, sigma} of z of a drawing.
  encode(lines) {
    return this.network.encode(this.rows(lines));
  }

  // The mixtures of every point of rows and of the next, as Python's `predict`.
  predict(rows, z, label) {
    let decoder = this.network.start(z, label);
    return [START, ...rows].map((row) => {
      const found = this.network.step(decoder, row);
      decoder = found.decoder;
      const {penLogits, logits, ...rest} = found.mixture;
      return {weights: softmax(logits), pens: softmax(penLogits), ...rest};
    });
  }

  // Yields the points {x, y, lifted} that go on after `lines`, in pixels, from
  // where the pen is. The first line of an empty drawing begins at (0, 0).
  * points({seed, temperature, lines = [], z = null, label = 0}) {
    const random = new Random(seed);
    const sampled = this.prior(random);
    const rows = this.rows(lines);
    let decoder = this.network.start(z ?? sampled, label);
    let mixture;
    for (const row of [START, ...rows])
      ({decoder, mixture} = this.network.step(decoder, row));
    let [x, y] = lines.length ? lines.at(-1).at(-1) : [0, 0];
    for (let count = rows.length; count < this.length; count++) {
      const row = this.#sample(mixture, temperature, random);
      if (row[4]) return;
      x += row[0] * this.scale;
      y += row[1] * this.scale;
      yield {x, y, lifted: row[3] === 1};
      ({decoder, mixture} = this.network.step(decoder, row));
    }
  }

  // A whole drawing, `lines` included.
  draw(how) {
    const ending = new Ending(how.lines ?? []);
    for (const point of this.points(how)) ending.add(point);
    return ending.lines;
  }

  // As the authors' page: component and pen at 0.5 + 0.5 * temperature.
  #sample(mixture, temperature, random) {
    const choice = 0.5 + 0.5 * temperature;
    const k = random.choose(softmax(mixture.logits, choice));
    const pen = random.choose(softmax(mixture.penLogits, choice));
    const [u, v] = [random.normal(), random.normal()];
    const rho = mixture.rho[k];
    const wide = Math.sqrt(temperature);
    const x = Math.sqrt(Math.max(1 - rho * rho, 0)) * u + rho * v;
    const row = [
      mixture.meanX[k] + x * wide * mixture.sigmaX[k],
      mixture.meanY[k] + v * wide * mixture.sigmaY[k], 0, 0, 0];
    row[2 + pen] = 1;
    return row;
  }
}

// A drawing that grows by points.
class Ending {
  #open;
  #pen;

  constructor(lines) {
    this.given = lines.length;
    this.lines = [...lines];
    // An empty drawing begins where the pen is; another goes on with a new line.
    this.#open = !lines.length;
    if (this.#open) this.lines.push([[0, 0]]);
    this.#pen = this.#open;
  }

  add({x, y, lifted}) {
    if (!this.#pen) this.lines.push([]);
    this.lines.at(-1).push([x, y]);
    this.#pen = !lifted;
  }
}
