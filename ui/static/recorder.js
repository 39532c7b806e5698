// A recording from the microphone. Nothing is sent before the reader has heard it and says so.

import { controls } from "./controls.js";
import { announce, button, el, setText } from "./dom.js";
import { clock } from "./units.js";

const INSECURE = "Browsers let a page use the microphone only over https, or on this machine (http://localhost).";
const REFUSED = "The browser does not let this page use the microphone. Allow it beside the address, then try again.";
const SUFFIXES = [["audio/webm", "webm"], ["audio/mp4", "m4a"], ["audio/ogg", "ogg"]];

/** `onRecorded(file)` is called where the reader keeps what was said. */
export function recorder(onRecorded) {
  const say = el("p", { class: "problem", role: "alert", hidden: true });
  const time = el("span", { class: "time", role: "timer" }, "0:00");
  const start = button("Record", () => begin().catch(explain));
  const stop = button("Stop", () => running?.recorder.stop(), { class: "primary" });
  const live = el("span", { class: "live", hidden: true }, el("span", { class: "dot" }), time, stop);
  const review = el("div", { class: "review", hidden: true });
  let running = null;

  function explain(error) {
    const reasons = { NotAllowedError: REFUSED, NotFoundError: "No microphone was found." };
    setText(say, reasons[error.name] ?? `The microphone cannot be used: ${error.message}`);
    say.hidden = false;
  }

  async function begin() {
    say.hidden = true;
    if (!navigator.mediaDevices || !window.MediaRecorder) throw new Error(INSECURE);
    const stream = await navigator.mediaDevices.getUserMedia({ audio: true });
    const made = new MediaRecorder(stream);
    const parts = [];
    made.ondataavailable = (event) => parts.push(event.data);
    made.onstop = () => end(new Blob(parts, { type: made.mimeType }), (Date.now() - since) / 1000);
    const since = Date.now();
    made.start(1000);
    const timer = setInterval(() => setText(time, clock((Date.now() - since) / 1000)), 250);
    running = { recorder: made, stream, timer };
    [start.hidden, live.hidden] = [true, false];
    stop.focus();
    announce("Recording");
  }

  function end(blob, seconds) {
    release();
    [start.hidden, live.hidden] = [false, true];
    setText(time, "0:00");
    if (blob.size) offer(new File([blob], fileName(blob.type), { type: blob.type }), seconds);
  }

  function release() {
    clearInterval(running?.timer);
    for (const track of running?.stream.getTracks() ?? []) track.stop();
    running = null;
  }

  function offer(file, duration) {
    const url = URL.createObjectURL(file);
    const done = () => {
      URL.revokeObjectURL(url);
      review.hidden = true;
      review.replaceChildren();
      start.focus();
    };
    const keep = () => {
      done();
      onRecorded(file);
    };
    review.replaceChildren(
      controls(el("audio", { src: url }), { label: "What you recorded", duration }),
      button("Transcribe it", keep, { class: "primary keep" }), button("Discard", done),
    );
    review.hidden = false;
    review.querySelector("button.keep").focus();
    announce("The recording can be transcribed or discarded");
  }

  const close = () => {
    if (running) running.recorder.onstop = null;
    release();
  };
  return { controls: [start, live], below: [say, review], close, isUnsaved: () => running !== null || !review.hidden };
}

function fileName(type) {
  const now = new Date(Date.now() - new Date().getTimezoneOffset() * 60_000).toISOString(); // of the reader's clock
  const suffix = SUFFIXES.find(([start]) => type.startsWith(start))?.[1] ?? "webm";
  return `recording-${now.slice(0, 19).replace("T", "-").replaceAll(":", ".")}.${suffix}`;
}
