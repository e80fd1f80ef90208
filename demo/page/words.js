// A sentence whose words can be pointed at: one stop of the Tab key; arrow keys
// move between the words.

const STEPS = {
  ArrowLeft: (i) => i - 1,
  ArrowRight: (i) => i + 1,
  Home: () => 0,
  End: (i, length) => length - 1,
};

export class Words {
  #sentence;
  #changed;
  #at = {mouse: null, keyboard: null};
  #shown = null;

  // Calls `changed(i or null, who)` with the word of the 'mouse' or 'keyboard'.
  constructor(sentence, changed) {
    this.#sentence = sentence;
    this.#changed = changed;
    const word = ({target}) => {
      const i = this.#words.indexOf(target.closest?.('.word'));
      return i < 0 ? null : i;
    };
    sentence.addEventListener('pointerover', (event) => {
      if (event.pointerType !== 'touch') this.#move('mouse', word(event));
    });
    sentence.addEventListener('pointerleave', () => this.#move('mouse', null));
    sentence.addEventListener('focusin', (event) => {
      for (const other of this.#words)
        other.tabIndex = other === event.target ? 0 : -1;
      this.#move('keyboard', word(event));
    });
    sentence.addEventListener('focusout', () => this.#move('keyboard', null));
    // A finger does not hover: its touch is a click, which must set the focus
    // itself in some browsers.
    sentence.addEventListener('click', (event) => {
      if (word(event) !== null) event.target.focus();
    });
    sentence.addEventListener('keydown', (event) => {
      if (event.key === 'Escape') {
        this.#move('mouse', null);
        this.#move('keyboard', null);
      }
      if (event.ctrlKey || event.altKey || event.metaKey) return;
      if (word(event) === null || !(event.key in STEPS)) return;
      event.preventDefault();
      const length = this.#words.length;
      this.#words[STEPS[event.key](word(event), length)]?.focus();
    });
  }

  get #words() {
    return [...this.#sentence.querySelectorAll('.word')];
  }

  // Shows words that can be pointed at, or else a plain sentence.
  say(words, canPoint) {
    this.#at = {mouse: null, keyboard: null};
    this.#shown = null;
    if (!words.length) {
      const none = document.createElement('em');
      none.textContent = 'no words';
      this.#sentence.replaceChildren(none);
    } else if (canPoint)
      this.#sentence.replaceChildren(...words.flatMap((word, i) => {
        const button = document.createElement('button');
        button.type = 'button';
        button.className = 'word';
        button.tabIndex = i ? -1 : 0;
        button.textContent = word;
        return [button, ' '];
      }));
    else this.#sentence.textContent = words.join(' ');
  }

  // The word under the mouse, or else the one with the focus.
  #move(who, i) {
    this.#at[who] = i;
    const shown = this.#at.mouse ?? this.#at.keyboard;
    if (shown === this.#shown) return;
    this.#shown = shown;
    this.#words.forEach((word, j) =>
      word.classList.toggle('shown', j === shown));
    this.#changed(shown, shown === this.#at.mouse ? 'mouse' : 'keyboard');
  }
}
