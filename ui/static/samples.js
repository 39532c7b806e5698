// What /admin/health has said in the last hour. It goes on while another view is shown, so that the lines have no gaps.

import { ask, paced } from "./api.js";
import { poll } from "./poll.js";

const EVERY_MS = 5_000;
const KEPT_MS = 3_600_000;
const listeners = new Set();
const samples = [];
let polling = null;

/** `listener(samples, problem)`: samples are {at, health}, health null where the service did not answer. */
export function watchHealth(listener) {
  listeners.add(listener);
  polling ??= poll(look);
  if (samples.length) listener(samples, null);
  return () => listeners.delete(listener);
}

async function look() {
  const { health, problem } = await survey();
  const now = Date.now();
  samples.push({ at: now, health });
  while (samples[0].at < now - KEPT_MS) samples.shift();
  for (const listener of listeners) listener(samples, problem);
  return paced(EVERY_MS);
}

/** A service that is not well answers with 503 and the same body. */
async function survey() {
  try {
    return { health: await ask("admin/health"), problem: null };
  } catch (problem) {
    const told = problem.body?.database ? problem.body : null;
    return { health: told, problem: told ? null : problem };
  }
}
