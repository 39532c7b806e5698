// The recording, playing. Where no key is needed the browser fetches ranges by itself; with a key, worker.js adds it to
// each range; where no service worker may run (plain http on another machine) the whole recording is fetched first, up
// to a size that every browser can hold.

import { address, call } from "./api.js";
import { controls } from "./controls.js";
import { el, setText } from "./dom.js";
import { key } from "./session.js";
import { bytes } from "./units.js";

const HELD_AT_MOST = 256 * 1024 ** 2;
const CANNOT_PLAY = "This browser cannot play the recording: it is not here yet, or in a format that it does not know.";

/** `onTime(seconds)` comes with each frame while it plays. */
export function player(job, onTime) {
  const audio = el("audio", { preload: "metadata" });
  const bar = controls(audio, { label: `Player of ${job.filename}`, duration: job.audio?.duration ?? 0 });
  const note = el("p", { class: "note", role: "status", hidden: true });
  const abort = new AbortController();
  let frame = 0;
  let url = "";

  const explain = (text) => {
    bar.hidden = true;
    note.hidden = false;
    setText(note, text);
  };
  const everyFrame = () => {
    onTime(audio.currentTime);
    frame = requestAnimationFrame(everyFrame);
  };
  const listen = (name, listener) => audio.addEventListener(name, listener);
  listen("play", () => {
    cancelAnimationFrame(frame);
    everyFrame();
  });
  listen("pause", () => cancelAnimationFrame(frame));
  listen("seeked", () => onTime(audio.currentTime));
  listen("error", () => explain(CANNOT_PLAY));
  source(job, abort.signal).then((found) => {
    audio.src = url = found;
  }, (problem) => abort.signal.aborted || explain(problem.message));

  function close() {
    abort.abort();
    cancelAnimationFrame(frame);
    audio.removeAttribute("src");
    audio.load();
    if (url.startsWith("blob:")) URL.revokeObjectURL(url);
  }

  function seek(seconds) {
    audio.currentTime = seconds;
    onTime(seconds);
  }

  return { element: el("div", { class: "player" }, bar, note), seek, close, time: () => audio.currentTime };
}

async function source(job, signal) {
  const path = `transcribe/${job.job_id}/audio`;
  if (!key() || (await hasWorker())) return address(path);
  const answer = await call(path, { signal });
  const size = Number(answer.headers.get("Content-Length"));
  if (size > HELD_AT_MOST) {
    throw new Error(`The recording (${bytes(size)}) plays here only over https: it is too large to be held in memory.`);
  }
  return URL.createObjectURL(await answer.blob());
}

let registered = null;

function hasWorker() {
  registered ??= register().catch(() => false);
  return registered;
}

async function register() {
  const workers = navigator.serviceWorker;
  if (!workers) return false;
  workers.addEventListener("message", (event) => event.ports[0]?.postMessage(key()));
  workers.startMessages();
  const named = (name) => name;
  const policy = window.trustedTypes?.createPolicy("worker-address", { createScriptURL: named });
  const url = new URL("worker.js", document.baseURI).href;
  await workers.register(policy ? policy.createScriptURL(url) : url);
  if (workers.controller) return true;
  return new Promise((resolve) => {
    workers.addEventListener("controllerchange", () => resolve(true), { once: true });
    setTimeout(resolve, 3000, false);
  });
}
