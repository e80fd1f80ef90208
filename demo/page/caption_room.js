// The room of captions: images, the camera, videos and their captions.

import {show} from './api.js';
import {Camera} from './camera.js';
import {complain} from './notices.js';
import {forgive} from './notices.js';
import {say} from './notices.js';
import {showResult} from './result.js';
import {fill} from './settings.js';

const KINDS = {
  photograph: {path: 'caption', models: 'captioner', limit: 'photo_bytes'},
  video: {
    path: 'caption_video',
    models: 'video-captioner',
    limit: 'video_bytes',
  },
};

const TRIES = 3;  // Number of attempts when the server is lost meanwhile.

const part = (name) => document.getElementById(name);
const room = document.querySelector('#caption .room');
const stage = room.querySelector('.stage');
const film = room.querySelector('.film');
const figure = room.querySelector('.photograph');
const live = room.querySelector('.live');
const camera = new Camera(live.querySelector('video'));
const entries = [];  // {kind, blob, name, url, tries, answer, button}
let current = null;
let limits = {};
let queue = Promise.resolve();

export function offer(captioners, films, given) {
  room.hidden = !captioners.length && !films.length;
  limits = given;
  part('photographs').accept = limits.photo_types.join();
  part('videos').accept = limits.video_types.join();
  const names = (models) => models.map(({name}) => name);
  fill(part('captioner'), names(captioners), part('captioner').value);
  fill(part('video-captioner'), names(films), part('video-captioner').value);
  part('captioner-field').hidden = !captioners.length;
  part('photographs').closest('label').hidden = !captioners.length;
  part('camera').hidden = !captioners.length;
  part('video-captioner-field').hidden = !films.length;
  part('video-choice').hidden = !films.length;
}

// Sends unanswered files again after the server was lost.
export function resume() {
  for (const entry of entries)
    if (!entry.answer) queue = queue.then(() => describe(entry));
}

export function leave() {
  stopCamera();
  part('clip').pause();
}

/* Adding files. */

function take(blobs) {
  forgive();
  stopCamera();
  for (const blob of blobs) {
    const kind = blob.type.startsWith('video/') ? 'video' : 'photograph';
    add(kind, blob);
  }
}

function add(kind, blob) {
  const {limit, models} = KINDS[kind];
  const name = blob.name ?? 'The image';
  if (!part(models).value) {
    complain(`${name}: no model for a ${kind} is here.`);
    return;
  }
  if (blob.size > limits[limit]) {
    complain(`${name} is larger than ${(limits[limit] / 1e6).toFixed(0)} MB.`);
    return;
  }
  const entry = {kind, blob, name, url: URL.createObjectURL(blob), tries: 0};
  entry.button = thumbnail(entry);
  entries.push(entry);
  open(entry);
  queue = queue.then(() => describe(entry));
}

async function describe(entry) {
  const {path, models} = KINDS[entry.kind];
  if (!entries.includes(entry) || entry.answer) return;
  try {
    entry.tries++;
    entry.answer = await show(path, part(models).value, entry.blob);
    if (entry === current) {
      await open(entry);
      say(`${entry.answer.captions[0]?.text || 'No words'}.`);
    }
    entry.tries = 0;
  } catch (error) {
    if (error.status === 0 && entry.tries < TRIES) return;
    remove(entry);
    complain(`${entry.name}: ${error.message}`);
  }
}

function remove(entry) {
  entries.splice(entries.indexOf(entry), 1);
  entry.button.parentElement.remove();
  URL.revokeObjectURL(entry.url);
  film.hidden = entries.length < 2;
  if (entry === current) open(entries.at(-1) ?? null);
}

function thumbnail(entry) {
  const button = document.createElement('button');
  button.type = 'button';
  button.className = 'tile';
  button.setAttribute('aria-label', `Show ${entry.kind} ${entry.name}`);
  const shown = document.createElement(
    entry.kind === 'video' ? 'video' : 'img');
  if (entry.kind === 'video') shown.muted = true;
  else shown.alt = '';
  shown.src = entry.url;
  button.append(shown);
  button.addEventListener('click', () => {
    forgive();
    stopCamera();
    open(entry);
  });
  const item = document.createElement('li');
  item.append(button);
  film.append(item);
  return button;
}

/* Showing one entry. */

async function open(entry) {
  current = entry;
  film.hidden = entries.length < 2;
  for (const {button} of entries)
    button.setAttribute('aria-pressed', button === entry?.button);
  const clip = part('clip');
  const photograph = figure.querySelector('img');
  clip.hidden = entry?.kind !== 'video';
  figure.hidden = entry?.kind !== 'photograph';
  stage.querySelector('.invitation').hidden = Boolean(entry);
  room.querySelector('.result').setAttribute(
    'aria-busy', Boolean(entry && !entry.answer));
  room.querySelector('.waiting').textContent = entry
    ? 'The model looks …' : 'Nothing yet: it has seen no image.';
  if (!entry) {
    showResult(null);
    return;
  }
  if (entry.kind === 'video') {
    if (clip.src !== entry.url) clip.src = entry.url;
  } else {
    clip.pause();
    if (photograph.src !== entry.url) photograph.src = entry.url;
    photograph.alt = entry.answer?.captions[0]?.text ?? entry.name;
    // A browser may not support a format that the server does.
    await photograph.decode().catch(() => {});
  }
  if (entry === current) showResult(entry.answer ?? null);
}

// Captions the entry again with another model.
for (const {models} of Object.values(KINDS))
  part(models).addEventListener('change', () => {
    if (!current || KINDS[current.kind].models !== models) return;
    const entry = current;
    entry.answer = null;
    open(entry);
    queue = queue.then(() => describe(entry));
  });

/* Sources of files. */

for (const name of ['photographs', 'videos'])
  part(name).addEventListener('change', ({target}) => {
    take([...target.files]);
    target.value = '';
  });

for (const type of ['dragenter', 'dragover'])
  room.addEventListener(type, (event) => {
    if (![...event.dataTransfer.types].includes('Files')) return;
    event.preventDefault();
    stage.classList.add('over');
  });
room.addEventListener('dragleave', (event) => {
  if (!room.contains(event.relatedTarget)) stage.classList.remove('over');
});
room.addEventListener('drop', (event) => {
  event.preventDefault();
  stage.classList.remove('over');
  take([...event.dataTransfer.files]);
});
document.addEventListener('paste', (event) => {
  if (room.offsetParent && event.clipboardData.files.length)
    take([...event.clipboardData.files]);
});

function stopCamera() {
  if (live.hidden) return;
  camera.stop();
  live.hidden = true;
  open(current);
}

part('camera').addEventListener('click', async () => {
  forgive();
  try {
    if (!await camera.start()) return;
    for (const other of stage.children) other.hidden = other !== live;
    part('shoot').focus();
  } catch (error) {
    complain(error);
  }
});
part('stop').addEventListener('click', stopCamera);
part('shoot').addEventListener('click', async () => {
  const blob = await camera.shoot();
  take([new File([blob], 'Camera image', {type: blob.type})]);
});
