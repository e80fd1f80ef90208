// The HTTP requests to the server, and the messages of its errors.

import {settle} from './notices.js';
import {warn} from './notices.js';

const WAIT = 1000;  // Milliseconds until a busy server is asked again.
const LONGEST = 4000;

export const BUSY = 'The server is busy. The page asks again by itself.';

// Dispatches 'lost' when the server does not answer.
export const connection = new EventTarget();
export const lose = () => connection.dispatchEvent(new Event('lost'));

export class Refused extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

async function answer(path, options) {
  let response;
  try {
    response = await fetch(path, options);
  } catch (error) {
    if (error.name === 'AbortError') throw error;
    lose();
    throw new Refused('The server does not answer. Is it still running?', 0);
  }
  const said = await response.json().catch(() => ({}));
  if (!response.ok)
    throw new Refused(
      said.error ?? `The server answered ${response.status}.`, response.status);
  return said;
}

export const models = () => answer('/api/models', {cache: 'no-store'});

// Retries, after growing waits, while the server is busy.
async function insist(path, options) {
  for (let wait = WAIT; ; wait *= 2) {
    try {
      const said = await answer(path, options);
      if (wait > WAIT) settle();
      return said;
    } catch (error) {
      if (error.status !== 503 || wait > LONGEST) throw error;
    }
    warn(BUSY);
    await new Promise((resolve) => setTimeout(resolve, wait));
  }
}

// Sends `question` as JSON to /api/`name`.
export function ask(name, question) {
  return insist(`/api/${name}`, {
    method: 'POST',
    headers: {'Content-Type': 'application/json'},
    body: JSON.stringify(question),
  });
}

// Sends the bytes of a Blob to /api/`name`.
export function show(name, model, blob, signal) {
  return insist(`/api/${name}?model=${encodeURIComponent(model)}`, {
    method: 'POST',
    headers: {'Content-Type': blob.type || 'application/octet-stream'},
    body: blob,
    signal,
  });
}
