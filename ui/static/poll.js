// Looking again and again: soon while something moves, seldom while nobody looks, later where the service says so.

const HIDDEN_MS = 30_000;
const TROUBLE_MS = 5_000;

/**
 * Calls `look` now, and again after as many ms as it returns; null: never again. `onProblem(problem)` hears what it
 * throws, `onProblem(null)` that it is over.
 */
export function poll(look, onProblem = () => {}) {
  let timer = 0;
  let stopped = false;
  let looking = false;
  let again = false;

  async function now() {
    if (stopped) return;
    if (looking) {
      again = true;
      return;
    }
    clearTimeout(timer);
    looking = true;
    const delay = await attempt();
    looking = false;
    if (delay === null) stop();
    if (stopped) return;
    timer = setTimeout(now, again ? 0 : document.hidden ? Math.max(delay, HIDDEN_MS) : delay);
    again = false;
  }

  async function attempt() {
    try {
      const delay = await look();
      if (!stopped) onProblem(null);
      return delay;
    } catch (problem) {
      if (!stopped) onProblem(problem);
      return Math.max(TROUBLE_MS, (problem.retryAfterS ?? 0) * 1000);
    }
  }

  const onVisible = () => document.hidden || now();
  document.addEventListener("visibilitychange", onVisible);
  function stop() {
    stopped = true;
    clearTimeout(timer);
    document.removeEventListener("visibilitychange", onVisible);
  }

  now();
  return { now, stop };
}
