// A drawing and its undo history. A drawing is a list of {author, points} that
// is replaced, never changed; the author is 'person' or 'model'.

export class History {
  #past = [];
  #future = [];
  #changed;
  lines = [];

  constructor(changed) {
    this.#changed = changed;
  }

  get canUndo() {
    return this.#past.length > 0;
  }

  get canRedo() {
    return this.#future.length > 0;
  }

  replace(lines) {
    this.#past.push(this.lines);
    this.#future = [];
    this.lines = lines;
    this.#changed();
  }

  add(author, lines) {
    this.replace(
      [...this.lines, ...lines.map((points) => ({author, points}))]);
  }

  undo() {
    this.#step(this.#past, this.#future);
  }

  redo() {
    this.#step(this.#future, this.#past);
  }

  #step(from, to) {
    if (!from.length) return;
    to.push(this.lines);
    this.lines = from.pop();
    this.#changed();
  }
}
