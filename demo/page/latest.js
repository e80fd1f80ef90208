// One call at a time; of those that come meanwhile, only the last is made.

export function latest(run) {
  let running = false;
  let next = null;
  return async function call(...given) {
    next = given;
    if (running) return;
    running = true;
    try {
      while (next) {
        const taken = next;
        next = null;
        await run(...taken);
      }
    } finally {
      running = false;
    }
  };
}
