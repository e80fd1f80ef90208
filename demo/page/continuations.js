// Continuations of a drawing, point by point, over the WebSocket. Only the
// last question is answered: a new one cancels the one before.

export class Continuations {
  #socket = null;
  #id = 0;
  #asked = null;  // The question that is not answered yet.
  #listener;

  // `listener` has points(endings), done() and failed(message).
  constructor(listener) {
    this.#listener = listener;
    this.#open();
  }

  ask(question) {
    this.cancel();
    this.#asked = {...question, id: ++this.#id};
    this.#open();
    if (this.#socket.readyState === WebSocket.OPEN) this.#send(this.#asked);
  }

  cancel() {
    if (this.#asked && this.#socket?.readyState === WebSocket.OPEN)
      this.#send({cancel: this.#asked.id});
    this.#asked = null;
  }

  #open() {
    if (this.#socket && this.#socket.readyState <= WebSocket.OPEN) return;
    const address = new URL('/api/draw', location.href);
    address.protocol = address.protocol.replace('http', 'ws');
    const socket = this.#socket = new WebSocket(address);
    socket.addEventListener('open', () => {
      if (this.#asked) this.#send(this.#asked);
    });
    socket.addEventListener('message', (event) =>
      this.#receive(JSON.parse(event.data)));
    socket.addEventListener('close', () => {
      if (socket !== this.#socket) return;
      this.#socket = null;
      if (!this.#asked) return;
      this.#asked = null;
      this.#listener.failed(
        'The connection to the server is lost. Is it still running?');
    });
  }

  #send(message) {
    this.#socket.send(JSON.stringify(message));
  }

  #receive(message) {
    if (!this.#asked || message.id !== this.#asked.id) return;
    if (message.points) this.#listener.points(message.points);
    if (!message.done && !message.error) return;
    this.#asked = null;
    if (message.error) this.#listener.failed(message.error);
    else this.#listener.done();
  }
}
