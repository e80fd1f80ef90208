// What the server is asked over HTTP, and what it says when it refuses.

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
    throw new Refused('The server does not answer. Is it still running?', 0);
  }
  const said = await response.json().catch(() => ({}));
  if (!response.ok)
    throw new Refused(
      said.error ?? `The server answered ${response.status}.`, response.status);
  return said;
}

export const models = () => answer('/api/models', {cache: 'no-store'});

// Sends `question` as JSON to /api/`name`.
export function ask(name, question) {
  return answer(`/api/${name}`, {
    method: 'POST',
    headers: {'Content-Type': 'application/json'},
    body: JSON.stringify(question),
  });
}

// Sends the bytes of a Blob to /api/`name`.
export function show(name, model, blob, signal) {
  return answer(`/api/${name}?model=${encodeURIComponent(model)}`, {
    method: 'POST',
    headers: {'Content-Type': blob.type || 'application/octet-stream'},
    body: blob,
    signal,
  });
}
