// The room of the camera: gestures, a target, captions, frame by frame.

import {show} from './api.js';
import {Camera} from './camera.js';
import {complain} from './notices.js';
import {forgive} from './notices.js';
import {say} from './notices.js';
import {fill} from './settings.js';

const SIDE = 480;  // Longest side of the frames that are sent, in pixels.
const PAUSE = 500;  // Milliseconds between two captions.
const LEAST = 8;  // Sides of a box, in pixels.
const MAX_EVENTS = 6;
const HINTS = {
  gestures: 'Move before the camera.',
  targets: 'Draw a box around something with the mouse, a pen or a finger.',
  captions: 'The model says what it sees.',
};

const part = (name) => document.getElementById(name);
const room = document.querySelector('#watch .room');
const view = room.querySelector('video');
const canvas = room.querySelector('canvas');
const choice = part('watcher');
const camera = new Camera(view);
let models = [];  // {name, kind, rate}
let session = 0;  // The number of the present session.
let socket = null;
let on = false;
let box = null;
let corner = null;  // Where a box is begun.

export function offer(watchers, captioners) {
  models = [
    ...watchers,
    ...captioners.map(({name}) => ({name, kind: 'captions', rate: 25})),
  ];
  room.hidden = !models.length;
  fill(choice, models.map(({name}) => name), choice.value);
  arrange();
}

const model = () => models.find(({name}) => name === choice.value);

// A new model, or a camera that is turned on or off.
function arrange() {
  const kind = model()?.kind;
  part('watch-hint').textContent = HINTS[kind] ?? '';
  part('watch-before').hidden = kind !== 'gestures';
  room.querySelector('.scene').classList.toggle('aims', kind === 'targets');
  part('watch-toggle').querySelector('span').textContent =
    on ? 'Stop the camera' : 'Start the camera';
  room.querySelector('.before').hidden = on;
  room.querySelector('.watched').hidden = !on;
}

export function leave() {
  end();
  on = false;
  camera.stop();
  arrange();
}

function end() {
  session++;
  socket?.close();
  socket = null;
  box = corner = null;
  for (const name of ['classes', 'events', 'seen'])
    part(`watch-${name}`).replaceChildren();
  sketchBox(null);
}

function begin() {
  end();
  if (!on || !model()) return;
  if (model().kind === 'captions') describe(session);
  else if (model().kind === 'gestures') converse({}, session);
}

part('watch-toggle').addEventListener('click', async () => {
  forgive();
  if (on) {
    leave();
    return;
  }
  try {
    if (!await camera.start()) return;
    on = true;
    arrange();
    begin();
  } catch (error) {
    complain(error);
  }
});
choice.addEventListener('change', () => {
  forgive();
  arrange();
  begin();
});

/* Models that read one frame after the other. */

// The next frame is sent after the answer to the one before: a slow model
// misses frames, and is never behind.
function converse(more, mine) {
  const {name, rate} = model();
  socket = new WebSocket(`${location.origin.replace('http', 'ws')}/api/watch`);
  const own = socket;
  let sent = 0;
  let last = null;

  async function send() {
    if (mine !== session) return;
    const frame = await camera.shoot(SIDE);
    sent = performance.now();
    if (mine === session && frame && own.readyState === WebSocket.OPEN)
      own.send(frame);
  }

  own.addEventListener('open', () => {
    own.send(JSON.stringify({model: name, ...more}));
    send();
  });
  own.addEventListener('message', ({data}) => {
    if (mine !== session) return;
    const answer = JSON.parse(data);
    if (answer.error) {
      complain(answer.error);
      return;
    }
    if (answer.box) showBox(answer);
    else last = showClasses(answer.classes, last);
    setTimeout(send, Math.max(0, 1000 / rate - (performance.now() - sent)));
  });
  own.addEventListener('close', ({wasClean}) => {
    if (mine === session && !wasClean)
      complain('The server does not answer. Start the camera again.');
  });
}

function showClasses(classes, last) {
  part('watch-classes').replaceChildren(...classes.map((found) => {
    const item = document.createElement('li');
    const name = document.createElement('span');
    name.textContent = found.class;
    const number = document.createElement('span');
    number.className = 'number';
    number.textContent = found.probability.toFixed(2);
    const bar = document.createElement('span');
    bar.className = 'bar';
    bar.style.width = `${100 * found.probability}%`;
    item.append(name, number, bar);
    return item;
  }));
  const best = classes[0].class;
  if (best !== last && last !== null) {
    const item = document.createElement('li');
    item.textContent = best;
    const events = part('watch-events');
    events.prepend(item);
    while (events.children.length > MAX_EVENTS) events.lastChild.remove();
    say(best);
  }
  return best;
}

/* A target. */

// The size of the frames that are sent, in which boxes are.
function resized() {
  const scale = Math.min(
    1, SIDE / Math.max(view.videoWidth, view.videoHeight));
  return [
    Math.round(view.videoWidth * scale), Math.round(view.videoHeight * scale)];
}

// From the screen to pixels of a frame; the video is fitted into its element.
function toFrame({clientX, clientY}) {
  const [width, height] = resized();
  const area = canvas.getBoundingClientRect();
  const scale = Math.min(area.width / width, area.height / height);
  const limit = (value, most) => Math.min(Math.max(value, 0), most);
  return [
    limit((clientX - area.left - (area.width - scale * width) / 2) / scale,
      width),
    limit((clientY - area.top - (area.height - scale * height) / 2) / scale,
      height),
  ];
}

function between([x, y], [u, v]) {
  return [Math.min(x, u), Math.min(y, v), Math.abs(x - u), Math.abs(y - v)];
}

// A box that is probably not on its target is broken.
function sketchBox(shown, certainty = 1) {
  const [width, height] = resized();
  canvas.width = width || 1;
  canvas.height = height || 1;
  if (!shown) return;
  const pen = canvas.getContext('2d');
  pen.strokeStyle = '#e69f00';
  pen.lineWidth = 3;
  if (certainty < 0.5) pen.setLineDash([8, 8]);
  pen.strokeRect(...shown);
}

function showBox({box: found, certainty}) {
  if (corner) return;  // Another one is being drawn.
  sketchBox(found, certainty);
  const words = `x ${found[0].toFixed(0)}, y ${found[1].toFixed(0)}, ` +
    `${found[2].toFixed(0)} × ${found[3].toFixed(0)} pixels`;
  part('watch-seen').textContent = certainty === undefined ?
    words : `${words}; on the target: ${(100 * certainty).toFixed(0)} %`;
}

canvas.addEventListener('pointerdown', (event) => {
  if (!on || model()?.kind !== 'targets' || !event.isPrimary) return;
  event.preventDefault();
  canvas.setPointerCapture(event.pointerId);
  end();
  corner = toFrame(event);
});
canvas.addEventListener('pointermove', (event) => {
  if (!corner) return;
  box = between(corner, toFrame(event));
  sketchBox(box);
});
canvas.addEventListener('pointerup', () => {
  if (!corner) return;
  corner = null;
  if (!box || Math.min(box[2], box[3]) < LEAST) {
    sketchBox(null);
    return;
  }
  forgive();
  converse({box}, session);
});

/* Captions. */

async function describe(mine) {
  while (mine === session) {
    try {
      const frame = await camera.shoot(SIDE);
      if (!frame || mine !== session) return;
      const {captions} = await show('caption', model().name, frame);
      if (mine !== session) return;
      part('watch-seen').textContent = captions[0]?.text ?? '';
    } catch (error) {
      complain(error);
      return;
    }
    await new Promise((resolve) => setTimeout(resolve, PAUSE));
  }
}
