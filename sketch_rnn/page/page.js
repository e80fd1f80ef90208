// The page: a paper, what the model makes of it, and the way between two
// drawings. The paper is SIDE units wide; the model counts in pixels.

const SIDE = 1000;
const ENDINGS = 6;
const STEPS = 7;
const SLICE = 8;  // Milliseconds of sampling in a frame.
const SVG = 'http://www.w3.org/2000/svg';

const sketcher = new Sketcher(
  JSON.parse(document.getElementById('model').textContent));
const units = 0.8 * SIDE / sketcher.size;
const $ = (id) => document.getElementById(id);
const paper = $('paper');

let drawing = [];  // Lines of {author, points} on the paper, in its units.
let past = [];
let stroke = null;
let seed = 1;
let work = 0;  // The number of the latest task; earlier ones stop.
let travel = 0;
const slots = {A: null, B: null};

const path = (line) =>
  'M' + line.map(([x, y]) => `${x.toFixed(1)} ${y.toFixed(1)}`).join('L');
const toPixels = (lines) =>
  lines.map(({points}) => points.map(([x, y]) => [x / units, y / units]));
const visible = (lines) => lines.filter((line) => line.length > 1);
const temperature = () => $('temperature').valueAsNumber;
const label = () => Math.max($('category').selectedIndex, 0);
const how = () => ({temperature: temperature(), label: label()});

function fill(svg, lines, box) {
  svg.setAttribute('viewBox', box.join(' '));
  svg.replaceChildren(...['person', 'model'].map((author) => {
    const drawn = document.createElementNS(SVG, 'path');
    drawn.setAttribute('class', author);
    drawn.setAttribute('d', lines.filter((line) => line.author === author)
      .map(({points}) => path(points)).join(''));
    return drawn;
  }));
}

// A square around lines: [x, y, width, height].
function frame(lines) {
  const points = lines.flatMap((line) => line.points);
  if (!points.length) return [0, 0, SIDE, SIDE];
  const [xs, ys] = [0, 1].map((axis) => points.map((point) => point[axis]));
  const ends = [xs, ys].map((some) => [
    some.reduce((a, b) => Math.min(a, b)),
    some.reduce((a, b) => Math.max(a, b))]);
  const side = 1.16 * Math.max(...ends.map(([low, high]) => high - low), 50);
  return [...ends.map(([low, high]) => (low + high - side) / 2), side, side];
}

// Lines of the model in pixels, in the middle of the paper if they stand alone.
function byModel(lines, centred) {
  const made = visible(lines).map((line) => ({
    author: 'model',
    points: line.map(([x, y]) => [x * units, y * units]),
  }));
  if (!centred) return made;
  const [x, y, side] = frame(made);
  const moved = [(SIDE - side) / 2 - x, (SIDE - side) / 2 - y];
  return made.map((line) => ({
    ...line,
    points: line.points.map(([u, v]) => [u + moved[0], v + moved[1]]),
  }));
}

function put(lines) {
  past.push(drawing);
  drawing = lines;
  show();
}

function show() {
  const all = stroke ? [...drawing, {author: 'person', points: stroke}]
    : drawing;
  fill(paper, all, [0, 0, SIDE, SIDE]);
  $('invitation').hidden = all.length > 0;
  for (const name of ['clear', 'save', 'again', 'use-A', 'use-B', 'mimic'])
    if ($(name)) $(name).disabled = !drawing.length;
  $('undo').disabled = !past.length;
}

// A button with a picture, which puts it on the paper.
function tile(name) {
  const button = document.createElement('button');
  button.type = 'button';
  button.className = 'tile';
  button.setAttribute('aria-label', name);
  const svg = button.appendChild(document.createElementNS(SVG, 'svg'));
  svg.setAttribute('aria-hidden', 'true');
  let lines = [];
  button.addEventListener('click', () => {
    if (!lines.length) return;
    stop();
    put(lines);
  });
  return {
    button,
    show(found) {
      lines = found;
      fill(svg, lines, frame(lines));
    },
  };
}

function stop() {
  work++;
  $('endings').setAttribute('aria-busy', 'false');
}

// Samples drawings side by side, some milliseconds in each frame. `make` gives
// the arguments of the i-th.
function sample(make, centred) {
  const mine = ++work;
  const begun = performance.now();
  const all = Array.from({length: ENDINGS}, (_, i) => {
    const made = make(i);
    const {button, show: draw} = tile(`Take drawing ${i + 1} of ${ENDINGS}`);
    const given = made.lines ?? [];
    const ending = new Ending(given);
    const points = sketcher.points(made);
    return {
      button,
      advance() {
        const {done, value} = points.next();
        if (!done) ending.add(value);
        return !done;
      },
      draw() {
        const own = byModel(ending.lines.slice(given.length), centred);
        draw(given.length ? [...drawing, ...own] : own);
      },
    };
  });
  $('endings').replaceChildren(...all.map(({button}) => button));
  $('endings').setAttribute('aria-busy', 'true');
  let left = all;
  let count = 0;
  const tick = () => {
    if (mine !== work) return;
    const until = performance.now() + SLICE;
    while (left.length && performance.now() < until) {
      count += left.length;
      left = left.filter((it) => it.advance());
    }
    for (const it of all) it.draw();
    if (left.length) {
      requestAnimationFrame(tick);
      return;
    }
    stop();
    const seconds = (performance.now() - begun) / 1000;
    $('status').textContent =
      `${count} points, ${Math.round(count / seconds)} a second.`;
  };
  tick();
}

const next = () => seed++;
const go = () => sample(
  () => ({...how(), seed: next(), lines: toPixels(drawing)}), false);
const surprise = () => sample(() => ({...how(), seed: next()}), true);

function mimic() {
  const {mean, sigma} = sketcher.encode(toPixels(drawing));
  sample(() => {
    const mine = next();
    const random = new Random(mine);
    const z = mean.map((x, i) => x + sigma[i] * random.normal());
    return {...how(), seed: mine, z};
  }, true);
}

/* The way between two drawings: the same random numbers at every share. */

function between(share) {
  const z = slerp(slots.A.z, slots.B.z, share);
  return byModel(sketcher.draw({...how(), seed: travel, z}), true);
}

function walk() {
  if (!slots.A || !slots.B) return;
  travel = next();
  const tiles = Array.from({length: STEPS}, (_, i) => {
    const share = i / (STEPS - 1);
    const it = tile(`${Math.round(100 * share)} % of the way`);
    it.show(between(share));
    return it.button;
  });
  $('strip').replaceChildren(...tiles);
  $('way').hidden = false;
  move();
}

function move() {
  const lines = between($('share').valueAsNumber);
  fill($('middle'), lines, frame(lines));
}

function use(name) {
  const {mean} = sketcher.encode(toPixels(drawing));
  slots[name] = {z: mean};
  fill($(`slot-${name}`), drawing, frame(drawing));
  walk();
}

/* The pen. */

function locate({clientX, clientY}) {
  const box = paper.getBoundingClientRect();
  return [
    (clientX - box.left) / box.width * SIDE,
    (clientY - box.top) / box.height * SIDE];
}

paper.addEventListener('pointerdown', (event) => {
  if (event.button) return;
  stop();
  paper.setPointerCapture(event.pointerId);
  stroke = [locate(event)];
  show();
});
paper.addEventListener('pointermove', (event) => {
  if (!stroke) return;
  const events = event.getCoalescedEvents?.() ?? [];
  stroke.push(...(events.length ? events : [event]).map(locate));
  show();
});
paper.addEventListener('pointerup', () => {
  const points = stroke;
  stroke = null;
  if (points?.length > 1) {
    put([...drawing, {author: 'person', points}]);
    go();
  } else {
    show();
  }
});
paper.addEventListener('pointercancel', () => {
  stroke = null;
  show();
});

/* Buttons. */

const on = (id, action) => $(id)?.addEventListener('click', action);
on('surprise', surprise);
on('again', go);
on('mimic', mimic);
on('use-A', () => use('A'));
on('use-B', () => use('B'));
on('clear', () => {
  stop();
  put([]);
});
on('undo', () => {
  stop();
  drawing = past.pop();
  show();
});
on('save', () => {
  const box = frame(drawing).map((x) => x.toFixed(1)).join(' ');
  const drawn = drawing.map(({points}) => `<path d="${path(points)}"/>`);
  const text = `<svg xmlns="${SVG}" width="600" height="600" viewBox="${box}">
<g fill="none" stroke="black" stroke-width="5" stroke-linecap="round">
${drawn.join('\n')}
</g>
</svg>
`;
  const link = document.createElement('a');
  link.href = URL.createObjectURL(new Blob([text], {type: 'image/svg+xml'}));
  link.download = 'drawing.svg';
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href));
});
$('share')?.addEventListener('input', move);
$('temperature').addEventListener('input', () => {
  $('temperature-value').textContent = temperature().toFixed(2);
});
$('category').replaceChildren(
  ...sketcher.categories.map((name) => new Option(name, name)));
$('category').parentElement.hidden = !sketcher.network.num_classes;
show();
