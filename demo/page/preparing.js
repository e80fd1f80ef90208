// How far the models are that are still being trained.

import {complain} from './notices.js';

const section = document.getElementById('preparing');
const told = new Set();  // Whose failures.

export function showProgress({ready, progress}) {
  section.hidden = ready;
  const list = section.querySelector('ul');
  list.replaceChildren(...progress.map((it) => {
    const item = document.createElement('li');
    const label = document.createElement('label');
    const bar = document.createElement('progress');
    bar.max = it.num_steps || 1;
    // Without a value it shows that something happens.
    if (it.num_steps || it.what === 'waiting') bar.value = it.step;
    const count = document.createElement('span');
    count.textContent = it.error ?? (it.num_steps
      ? `${it.what}, step ${it.step} of ${it.num_steps}` : it.what);
    label.append(it.name, ...it.error ? [] : [bar]);
    item.append(label, count);
    return item;
  }));
  for (const {name, error} of progress) {
    if (!error || told.has(name)) continue;
    told.add(name);
    complain(`${name}: ${error}`);
  }
}
