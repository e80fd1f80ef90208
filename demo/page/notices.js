// Messages: visible errors, and announcements for screen readers.

const alerts = document.getElementById('alerts');
const spoken = document.getElementById('spoken');

export function say(text) {
  spoken.textContent = text;
}

let trouble = null;

// Shows an error, except that of a lost server, which is shown already.
export function complain(error) {
  if (error.status !== 0) show(error.message ?? error);
}

// Shows a lasting message until `settle`, or until it is dismissed.
export function warn(message) {
  trouble = message;
  show(message);
}

export function settle() {
  if (trouble === null) return;
  trouble = null;
  alerts.replaceChildren();
}

export function forgive() {
  if (trouble === null) alerts.replaceChildren();
  else if (alerts.textContent) show(trouble);
}

function show(message) {
  if (alerts.querySelector('p')?.textContent === message) return;
  const text = document.createElement('p');
  text.textContent = message;
  const close = document.createElement('button');
  close.type = 'button';
  close.textContent = 'Close';
  close.addEventListener('click', () => alerts.replaceChildren());
  alerts.replaceChildren(text, close);
}
