// The service, as any caller has it: requests with the key, answers as JSON, refusals as Problems.

import { key } from "./session.js";

const ROOT = new URL("../", document.baseURI);
const SLOWER = 5; // times, where half of what the rate limit allows is used up
let isShort = false; // of requests that the rate limit still allows

/** What the service says is wrong; status 0: it does not answer. */
export class Problem extends Error {
  constructor(status, body, retryAfterS) {
    super(body?.detail ?? body?.problems?.join(", ") ?? `The service answered with status ${status}.`);
    this.status = status;
    this.body = body;
    this.retryAfterS = retryAfterS;
  }
}

export const address = (path) => new URL(path, ROOT).href;

export const keyHeader = () => (key() ? { "X-API-Key": key() } : {});

/** A Response that is fine. Throws Problem; where a key is refused, the page asks for another. */
export async function call(path, { method = "GET", json, signal } = {}) {
  const headers = keyHeader();
  if (json !== undefined) headers["Content-Type"] = "application/json";
  const body = json === undefined ? undefined : JSON.stringify(json);
  let answer;
  try {
    answer = await fetch(address(path), { method, headers, body, signal, cache: "no-store" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem(0, { detail: "The service does not answer. Is it running, and this machine online?" });
  }
  isShort = Number(answer.headers.get("RateLimit-Remaining") ?? 1) * 2 < Number(answer.headers.get("RateLimit-Limit"));
  if (!answer.ok) throw await refusal(answer);
  return answer;
}

async function refusal(answer) {
  if (answer.status === 401) document.dispatchEvent(new CustomEvent("key-refused"));
  const body = await answer.json().catch(() => null);
  return new Problem(answer.status, body, retryAfter(answer.headers.get("Retry-After")));
}

export const retryAfter = (header) => (/^\d+$/.test(header ?? "") ? Number(header) : null);

export async function ask(path, options) {
  const answer = await call(path, options);
  return answer.status === 204 ? null : answer.json();
}

/** `query("jobs/", {status: "failed", q: ""})`: what is empty is left out. */
export function query(path, parameters) {
  const given = Object.entries(parameters).filter(([, value]) => value !== "" && value !== null && value !== undefined);
  return given.length ? `${path}?${new URLSearchParams(given)}` : path;
}

/** How long to wait until the next look, so that looking leaves enough of the rate limit for the reader. */
export const paced = (ms) => (isShort ? ms * SLOWER : ms);

/** Who the key names: "admin", "user", or "" where one is needed and none, or a wrong one, was shown. */
export async function role() {
  try {
    await ask("admin/errors?limit=1");
    return "admin";
  } catch (problem) {
    if (problem.status === 401) return "";
    if (problem.status === 403) return "user";
    throw problem;
  }
}
