// Progress of the models that are not ready.

import {complain} from './notices.js';

const section = document.getElementById('preparing');
const reported = new Set();  // Models whose failures were shown.

export function showProgress({ready, progress}) {
  section.hidden = ready;
  const list = section.querySelector('ul');
  list.replaceChildren(...progress.map((it) => {
    const item = document.createElement('li');
    const label = document.createElement('label');
    const bar = document.createElement('progress');
    bar.max = it.num_steps || 1;
    // Without a value the bar shows unknown progress.
    if (it.num_steps || it.what === 'waiting') bar.value = it.step;
    const count = document.createElement('span');
    count.textContent = it.error ?? (it.num_steps
      ? `${it.what}, step ${it.step} of ${it.num_steps}` : it.what);
    label.append(it.name, ...it.error ? [] : [bar]);
    item.append(label, count);
    return item;
  }));
  for (const {name, error} of progress) {
    if (!error || reported.has(name)) continue;
    reported.add(name);
    complain(`${name}: ${error}`);
  }
}
