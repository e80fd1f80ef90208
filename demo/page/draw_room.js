// The drawing room: the strokes of the user and their continuations.

import {BUSY} from './api.js';
import {ask} from './api.js';
import {show} from './api.js';
import {between} from './between.js';
import {Continuations} from './continuations.js';
import {Endings} from './endings.js';
import {Fan} from './fan.js';
import {visible} from './fan.js';
import {centred} from './geometry.js';
import {distanceToLine} from './geometry.js';
import {toPaper} from './geometry.js';
import {toPixels} from './geometry.js';
import {History} from './history.js';
import {complain} from './notices.js';
import {forgive} from './notices.js';
import {say} from './notices.js';
import {settle} from './notices.js';
import {warn} from './notices.js';
import {Paper} from './paper.js';
import {useKeys} from './pens.js';
import {usePointers} from './pens.js';
import {byModel} from './pictures.js';
import {replay} from './replay.js';
import {download} from './save.js';
import {toPng} from './save.js';
import {toSvg} from './save.js';
import {Settings} from './settings.js';

const REACH = 8;  // Maximum distance to a pointed-at ending, in CSS pixels.
const CALM = 120;  // Milliseconds after the last change of a setting.

const room = document.querySelector('#draw .room');
const canvas = document.getElementById('paper');
const button = (name) => document.getElementById(name);

let continuations = null;
let calm = 0;
let stroke = null;  // The points of the user's pen, while it is down.
let pen = null;  // {at, down}: the pen that the keyboard moves.
let chosen = null;  // Index of the chosen ending, or null.
let suggested = null;  // Whole drawings of the model, to choose from.
let wanted = 0;  // The number of the latest request for them.
let turn = false;  // True while the model draws its own part.
let replayed = null;  // {lines, stop} while the drawing is replayed.

const history = new History(() => arrange());
const fan = new Fan(() => progress());
const settings = new Settings(room.querySelector('form'), (name) => {
  latent.offer();
  if (name === 'turn') return;
  forget();
  clearTimeout(calm);
  calm = setTimeout(() => {
    if (name === 'temperature') latent.again();
    // Not if drawings were asked for since.
    if (settings.mode === 'fan' && !suggested) goOn();
  }, CALM);
});
const paper = new Paper(canvas, render);
const latent = between(settings, {
  current: () => history.lines,
  put: (lines) => {
    forget();
    history.replace(lines);
    canvas.scrollIntoView({block: 'nearest'});
  },
});
const endings = new Endings(room.querySelector('.endings'), {choose, keep});

// Calls `found` when the connection is open.
export function offer(sketchers, limits, found) {
  room.hidden = !sketchers.length;
  if (!sketchers.length) return;
  settings.offer(sketchers, limits);
  latent.offer();
  continuations ??= new Continuations({
    open: found,
    points(points) {
      settle();
      fan.add(points);
    },
    done() {
      settle();
      fan.finish();
    },
    busy: () => warn(BUSY),
    failed: (message) => {
      fan.finish();
      complain(message);
    },
  });
  arrange();
}

// Repeats the unanswered request after the server was lost.
export function resume() {
  if (!fan.whole) goOn();
  continuations.open();
  latent.resume();
}

/* Continuations of the model. */

function goOn() {
  forget();
  if (settings.mode === 'off' || !history.lines.length) return;
  const {model} = settings;
  const count = settings.mode === 'fan' ? settings.count : 1;
  turn = settings.mode === 'turns';
  fan.begin(count, model.size);
  if (!turn) endings.begin(count);
  continuations.ask({
    ...settings.who,
    ...settings.how,
    lines: toPixels(history.lines.map(({points}) => points), model.size),
    count,
    pen_down: settings.joined,
  });
  room.setAttribute('aria-busy', 'true');
  arrange();
}

// Removes the continuations.
function forget() {
  stopReplay();
  continuations?.cancel();
  fan.clear();
  endings.clear();
  chosen = null;
  suggested = null;
  wanted++;
  turn = false;
  room.setAttribute('aria-busy', 'false');
  arrange();
}

// Asks for whole drawings, several at once.
async function suggest(name, question) {
  forget();
  const mine = wanted;
  const {model, count} = settings;
  endings.begin(count, true);
  suggested = Array(count).fill([]);
  room.setAttribute('aria-busy', 'true');
  arrange();
  try {
    const {drawings} = await ask(
      name, {...settings.who, ...settings.how, count, ...question});
    if (mine !== wanted) return;
    suggested = drawings.map((lines) =>
      byModel(centred(visible(toPaper(lines, model.size)))));
    endings.showWhole(suggested);
    say(`${count} drawings of the model. Tab goes to them, Enter puts one on ` +
      'the paper.');
    forgive();
  } catch (error) {
    if (mine !== wanted) return;
    forget();
    complain(error);
  }
  room.setAttribute('aria-busy', 'false');
  arrange();
}

// Puts the lines of an SVG file on the paper, as if the user had drawn them.
async function open(file) {
  if (!file) return;
  interrupt();
  const {model} = settings;
  try {
    const {lines} = await show(
      'svg', model.name, new Blob([file], {type: 'image/svg+xml'}));
    forget();
    history.replace(centred(toPaper(lines, model.size))
      .map((points) => ({author: 'person', points})));
    say(`${file.name} is on the paper.`);
    if (settings.mode === 'fan') goOn();
  } catch (error) {
    complain(error.status ? `${file.name}: ${error.message}` : error);
  }
}

// Called when the fan has changed.
function progress() {
  paper.refresh();
  if (turn) {
    takeTurn();
    return;
  }
  endings.show(history.lines, fan.endings);
  if (!fan.shown) return;
  room.setAttribute('aria-busy', 'false');
  arrange();
  const count = fan.endings.filter((it) => visible(it.lines).length).length;
  say(count
    ? `${count} endings of the model. Tab goes to them, Enter keeps one.`
    : 'The model has nothing to add.');
}

function takeTurn() {
  const [{lines, open}] = fan.endings;
  const whole = visible(open && !fan.shown ? lines.slice(0, -1) : lines);
  if (whole.length < settings.turn && !fan.shown) return;
  const added = whole.slice(0, settings.turn);
  forget();
  if (added.length) history.add('model', added);
  say(added.length ? 'Your turn.' : 'The model has nothing to add. Your turn.');
}

// Keeps the lines that the model has drawn when it is interrupted.
function interrupt() {
  const begun = turn ? visible(fan.endings[0]?.lines ?? []) : [];
  forget();
  forgive();
  if (begun.length) history.add('model', begun);
}

function choose(i) {
  if (i === chosen) return;
  chosen = i;
  endings.mark(i);
  paper.refresh();
}

function keep(i) {
  if (suggested) {
    const lines = suggested[i];
    if (!lines.length) return;
    forget();
    history.replace(lines);
    say('On the paper.');
    return;
  }
  fan.reveal(Infinity);
  const lines = visible(fan.endings[i].lines);
  forget();
  if (lines.length) history.add('model', lines);
  say('Kept.');
}

function endingAt(point) {
  const reach = REACH * paper.unit;
  let nearest = [reach, null];
  fan.endings.forEach(({lines}, i) => {
    for (const line of lines) {
      const least = distanceToLine(point, line);
      if (least < nearest[0]) nearest = [least, i];
    }
  });
  return turn ? null : nearest[1];
}

/* Strokes of the user. */

const hand = {
  begin(point) {
    interrupt();
    stroke = [point];
    arrange();
  },
  extend(points) {
    stroke.push(...points);
    paper.refresh();
  },
  end() {
    const points = stroke;
    stroke = null;
    if (points.length > 1) {
      history.add('person', [points]);
      goOn();
    }
    arrange();
  },
  abandon() {
    stroke = null;
    arrange();
  },
  hover(point) {
    const i = point && endingAt(point);
    canvas.classList.toggle('choosing', i !== null);
    if (point || canvas.matches(':hover')) choose(i);
  },
  tap(point) {
    const i = endingAt(point);
    if (i !== null) keep(i);
  },
  pen(at, down) {
    if (at && pen?.down !== down) say(`Pen ${down ? 'down' : 'up'}`);
    pen = at && {at, down};
    paper.refresh();
  },
};
usePointers(canvas, paper, hand);
useKeys(canvas, paper, hand);

/* Rendering. */

function render() {
  const shown = suggested?.[chosen] ?? history.lines;
  const lines = replayed?.lines ?? shown;
  for (const {author, points} of lines) paper.line(points, {author});
  if (replayed) return;
  const all = fan.endings.length;
  const opacity = all > 1 ? Math.max(0.4, 1.3 / Math.sqrt(all)) : 1;
  fan.endings.forEach((ending, i) => {
    const faint = chosen !== null && chosen !== i;
    for (const line of ending.lines)
      paper.line(line, {
        author: 'model',
        opacity: chosen === i ? 1 : faint ? 0.2 : opacity,
        width: all > 1 && chosen !== i ? 2 : 3.2,
      });
  });
  if (stroke) paper.line(stroke, {author: 'person'});
  if (pen) paper.pen(pen.at, pen.down);
}

function arrange() {
  paper.refresh();
  const drawn = history.lines.length > 0;
  endings.offered = settings.mode === 'fan' || suggested !== null;
  canvas.parentElement.classList.toggle(
    'begun', drawn || stroke !== null || suggested !== null);
  button('undo').disabled = !history.canUndo;
  button('redo').disabled = !history.canRedo;
  for (const name of ['clear', 'replay', 'save', 'save-png', 'mimic'])
    button(name).disabled = !drawn;
  button('mimic').hidden = !settings.model?.latent;
  button('again').disabled = !drawn || settings.mode === 'off';
  latent.arrange();
}

/* Buttons. */

// Afterwards the model suggests endings, but does not draw by itself.
function step(way) {
  forget();
  history[way]();
  if (settings.mode === 'fan') goOn();
}

function stopReplay() {
  replayed?.stop();
  replayed = null;
  paper.refresh();
}

button('undo').addEventListener('click', () => step('undo'));
button('redo').addEventListener('click', () => step('redo'));
button('again').addEventListener('click', goOn);
button('clear').addEventListener('click', () => {
  forget();
  history.replace([]);
});
button('replay').addEventListener('click', () => {
  stopReplay();
  if (turn) interrupt();
  replayed = {lines: [], stop: replay(history.lines, (lines) => {
    if (lines) {
      replayed.lines = lines;
      paper.refresh();
    } else {
      stopReplay();
      say('Replayed.');
    }
  })};
});
button('surprise').addEventListener('click', () => suggest('sample', {}));
button('mimic').addEventListener('click', () => suggest('mimic', {
  lines: toPixels(
    history.lines.map(({points}) => points), settings.model.size),
}));
button('open').addEventListener('change', ({target}) => {
  open(target.files[0]);
  target.value = '';  // The same file may be opened again.
});
for (const type of ['dragover', 'drop'])
  canvas.addEventListener(type, (event) => event.preventDefault());
canvas.addEventListener('drop', ({dataTransfer}) =>
  open(dataTransfer.files[0]));

const fanned = () => fan.endings.map((it) => visible(it.lines))
  .filter((lines) => lines.length);
button('save').addEventListener('click', () => {
  const title = `Begun by a person, continued by ${settings.model.name}`;
  const text = toSvg(history.lines, fanned(), title);
  download(new Blob([text], {type: 'image/svg+xml'}), 'drawing.svg');
});
button('save-png').addEventListener('click', async () =>
  download(await toPng(history.lines, fanned()), 'drawing.png'));
document.addEventListener('keydown', (event) => {
  if (!(event.ctrlKey || event.metaKey) || event.key.toLowerCase() !== 'z')
    return;
  if (!room.offsetParent || event.target.matches('input[type=text]')) return;
  event.preventDefault();
  step(event.shiftKey ? 'redo' : 'undo');
});
