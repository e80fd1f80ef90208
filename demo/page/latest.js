// Runs one call at a time; of the calls made meanwhile, only the last.

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
