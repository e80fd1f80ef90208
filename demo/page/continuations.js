// Continuations of a drawing, point by point, over the WebSocket. Only the last
// request is answered: a new one cancels the one before.

import {lose} from './api.js';

const WAIT = 500;  // Milliseconds until a busy server is asked again.
const LONGEST = 8000;

export class Continuations {
  #socket = null;
  #id = 0;
  #asked = null;  // The request that is not answered yet.
  #listener;
  #wait = WAIT;
  #again = 0;

  // `listener` has open(), points(endings), done(), busy() and failed(message).
  constructor(listener) {
    this.#listener = listener;
    this.open();
  }

  // Without a connection, the request waits for one.
  ask(question) {
    this.cancel();
    this.#asked = {...question, id: ++this.#id};
    this.#sendAsked();
  }

  cancel() {
    if (this.#asked && this.#socket?.readyState === WebSocket.OPEN)
      this.#send({cancel: this.#asked.id});
    this.#asked = null;
    this.#wait = WAIT;
    clearTimeout(this.#again);
  }

  open() {
    if (this.#socket?.readyState === WebSocket.OPEN) this.#listener.open();
    if (this.#socket && this.#socket.readyState <= WebSocket.OPEN) return;
    const address = new URL('/api/draw', location.href);
    address.protocol = address.protocol.replace('http', 'ws');
    const socket = this.#socket = new WebSocket(address);
    socket.addEventListener('open', () => {
      this.#listener.open();
      this.#sendAsked();
    });
    socket.addEventListener('message', (event) =>
      this.#receive(JSON.parse(event.data)));
    socket.addEventListener('close', () => {
      if (socket !== this.#socket) return;
      this.#socket = null;
      lose();
    });
  }

  #sendAsked() {
    if (this.#asked && this.#socket?.readyState === WebSocket.OPEN)
      this.#send(this.#asked);
  }

  #send(message) {
    this.#socket.send(JSON.stringify(message));
  }

  #receive(message) {
    if (!this.#asked || message.id !== this.#asked.id) return;
    if (message.busy) {
      this.#listener.busy();
      this.#again = setTimeout(() => this.#sendAsked(), this.#wait);
      this.#wait = Math.min(2 * this.#wait, LONGEST);
      return;
    }
    if (message.points) this.#listener.points(message.points);
    if (!message.done && !message.error) return;
    this.#asked = null;
    if (message.error) this.#listener.failed(message.error);
    else this.#listener.done();
  }
}
