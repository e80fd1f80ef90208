// Tabs: one stop of the Tab key; arrow keys move between them.

export function tabs(list, chosen) {
  const all = [...list.querySelectorAll('[role=tab]')];

  function choose(tab) {
    for (const other of all) {
      other.setAttribute('aria-selected', other === tab);
      other.tabIndex = other === tab ? 0 : -1;
      document.getElementById(other.getAttribute('aria-controls')).hidden =
        other !== tab;
    }
    chosen(tab.getAttribute('aria-controls'));
  }

  const steps = {
    ArrowLeft: (i) => i - 1,
    ArrowRight: (i) => i + 1,
    Home: () => 0,
    End: () => -1,
  };
  list.addEventListener('click', (event) => {
    const tab = event.target.closest('[role=tab]');
    if (tab) choose(tab);
  });
  list.addEventListener('keydown', (event) => {
    if (!(event.key in steps)) return;
    event.preventDefault();
    const i = steps[event.key](all.indexOf(document.activeElement));
    const tab = all.at(i % all.length);
    tab.focus();
    choose(tab);
  });
  return (name) => choose(
    all.find((tab) => tab.getAttribute('aria-controls') === name));
}
