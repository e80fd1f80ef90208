// Interpolation from A to B: a strip of drawings.

export function interpolation(context, changed) {
  const steps = document.querySelector('#interpolation input');
  steps.addEventListener('input', () => changed('B'));

  return async function show(card) {
    const {drawings} = await context.ask('interpolate', {
      first: context.lines('A'),
      second: context.lines('B'),
      ...context.how(),
      steps: steps.valueAsNumber,
    });
    card.querySelector('ol').replaceChildren(...drawings.map((lines, i) => {
      const item = document.createElement('li');
      const label = `Step ${i + 1} of ${drawings.length}: put on the paper`;
      item.append(context.tile(lines, label));
      return item;
    }));
  };
}
