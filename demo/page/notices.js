// Messages: errors in sight, and what only readers of the screen need.

const alerts = document.getElementById('alerts');
const spoken = document.getElementById('spoken');

export function say(text) {
  spoken.textContent = text;
}

export function complain(error) {
  const text = document.createElement('p');
  text.textContent = error.message ?? error;
  const close = document.createElement('button');
  close.type = 'button';
  close.textContent = 'Close';
  close.addEventListener('click', forgive);
  alerts.replaceChildren(text, close);
}

export function forgive() {
  alerts.replaceChildren();
}
