// The settings of sampling: a form whose ranges show their values.

const HINTS = {
  fan: 'The model goes on from where you stopped, in several ways at once.',
  turns: 'You draw, then the model adds to the drawing, then you again.',
  off: 'The model only watches.',
};

export class Settings {
  #form;
  #sketchers = [];
  #changed;

  // Calls `changed` with the name of a changed setting.
  constructor(form, changed) {
    this.#form = form;
    this.#changed = changed;
    showValues(form);
    form.addEventListener('submit', (event) => event.preventDefault());
    form.addEventListener('input', ({target}) => {
      if (target.name === 'model') this.#chooseModel();
      this.#arrange();
      this.#changed(target.name);
    });
  }

  offer(sketchers, limits) {
    const before = this.#form.elements.model.value;
    this.#sketchers = sketchers;
    this.#form.elements.count.max = Math.min(limits.count, 12);
    fill(this.#form.elements.model, sketchers.map(({name}) => name), before);
    this.#chooseModel();
    this.#arrange();
  }

  get model() {
    const {value} = this.#form.elements.model;
    return this.#sketchers.find(({name}) => name === value);
  }

  get mode() {
    return this.#form.elements.mode.value;
  }

  get count() {
    return this.#form.elements.count.valueAsNumber;
  }

  get turn() {
    return this.#form.elements.turn.valueAsNumber;
  }

  // True if the model continues the unfinished line.
  get joined() {
    return this.#form.elements.joined.checked;
  }

  // The fields of every request.
  get who() {
    const {name, categories} = this.model;
    if (!categories.length) return {model: name};
    return {model: name, category: this.#form.elements.category.value};
  }

  // The fields that control sampling, with a seed of their own.
  get how() {
    return {
      temperature: this.#form.elements.temperature.valueAsNumber,
      seed: crypto.getRandomValues(new Uint32Array(1))[0] >>> 1,
    };
  }

  #chooseModel() {
    const {category} = this.#form.elements;
    fill(category, this.model.categories, category.value);
    category.closest('label').hidden = !this.model.categories.length;
  }

  #arrange() {
    document.getElementById('count-field').hidden = this.mode !== 'fan';
    document.getElementById('turn-field').hidden = this.mode !== 'turns';
    document.getElementById('mode-hint').textContent = HINTS[this.mode];
  }
}

export function fill(select, values, chosen) {
  select.replaceChildren(...values.map((value) => new Option(value, value)));
  if (values.includes(chosen)) select.value = chosen;
}

// Shows the value of each range of an element beside it.
export function showValues(element) {
  const show = (input) => {
    const output = input.closest('label').querySelector('output');
    const digits = input.step.split('.')[1]?.length ?? 0;
    output.textContent = input.valueAsNumber.toFixed(digits);
  };
  for (const input of element.querySelectorAll('input[type=range]'))
    show(input);
  element.addEventListener('input', ({target}) => {
    if (target.type === 'range') show(target);
  });
}
