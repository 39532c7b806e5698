// Recordings on their way to the service: a few at once, tried again where that can help, each under one key, so that
// a recording that arrived without our hearing of it is not taken twice. They go on whichever view is shown.

import { address, keyHeader, retryAfter } from "./api.js";
import { announce, button, el, setText } from "./dom.js";
import { bytes, span } from "./units.js";

const AT_ONCE = 3;
const UNHEARD_TRIES = 6; // where the service does not answer at all; one that says "later" is asked for ever
const queue = [];
const listeners = new Set();
export const list = el("ul", { class: "uploads", "aria-label": "Uploads" });

export const isBusy = () => queue.some((upload) => upload.state !== "failed");

/** Told of each recording that the service has taken. */
export function onAccepted(listener) {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

export function send(files, options) {
  for (const file of files) queue.push(new Upload(file, options));
  if (files.length) announce(files.length === 1 ? `Uploading ${files[0].name}` : `Uploading ${files.length} files`);
  next();
}

function next() {
  const free = AT_ONCE - queue.filter((upload) => upload.state === "sending").length;
  const waiting = queue.filter((upload) => upload.state === "waiting");
  for (const upload of waiting.slice(0, Math.max(0, free))) upload.begin();
}

function drop(upload) {
  const hadFocus = upload.element.contains(document.activeElement);
  queue.splice(queue.indexOf(upload), 1);
  upload.element.remove();
  if (hadFocus) document.querySelector(".drop button")?.focus();
  next();
}

class Upload {
  constructor(file, options) {
    this.file = file;
    this.options = options;
    this.key = randomKey();
    this.state = "waiting"; // sending, later (a timer runs), failed
    this.unheard = 0;
    this.text = el("span", { class: "state" }, "waiting for its turn");
    this.bar = el("progress", { max: 1, value: 0, "aria-label": `Upload of ${file.name}` });
    this.again = button("Try again", () => this.retry(), { hidden: true });
    this.stop = button("Cancel", () => this.cancel(), { "aria-label": `Cancel the upload of ${file.name}` });
    this.element = el("li", {}, el("span", { class: "name" }, file.name), this.bar, this.text, this.again, this.stop);
    list.append(this.element);
  }

  begin() {
    this.state = "sending";
    this.request = new XMLHttpRequest(); // fetch tells nothing of how far an upload is
    this.request.open("POST", address("transcribe/"));
    const headers = { ...keyHeader(), "Idempotency-Key": this.key };
    for (const [name, value] of Object.entries(headers)) this.request.setRequestHeader(name, value);
    this.request.upload.onprogress = (event) => this.showProgress(event.loaded, event.total);
    this.request.onload = () => this.answered();
    this.request.onerror = () => this.unanswered();
    this.request.send(this.form());
    this.showProgress(0, this.file.size);
  }

  form() {
    const form = new FormData();
    for (const [name, value] of Object.entries(this.options)) form.append(name, value);
    form.append("file", this.file, this.file.name);
    return form;
  }

  showProgress(loaded, total) {
    this.bar.value = total ? loaded / total : 0;
    setText(this.text, loaded < total ? `${bytes(loaded)} of ${bytes(total)}` : "being stored");
  }

  answered() {
    const { status } = this.request;
    const body = parsed(this.request.responseText);
    if (status === 202) this.accepted(body);
    else if (status === 429 || status === 503 || body?.code === "in_flight") this.later(body);
    else this.fail(status, body);
  }

  accepted(job) {
    announce(`${this.file.name} was taken`);
    drop(this);
    for (const listener of listeners) listener(job);
  }

  later(body) {
    const seconds = retryAfter(this.request.getResponseHeader("Retry-After")) ?? 2;
    this.wait(seconds, body?.detail ?? "The service is busy.");
  }

  /** The network, or the service, is gone; or it hung up before it had read everything. */
  unanswered() {
    this.unheard += 1;
    if (this.unheard < UNHEARD_TRIES) this.wait(2 ** this.unheard, "The service does not answer.");
    else this.fail(0, { detail: "The service did not answer, and the file may have changed or gone meanwhile." });
  }

  wait(seconds, reason) {
    this.state = "later";
    setText(this.text, `${reason} Next try in ${span(seconds)}.`);
    this.timer = setTimeout(() => {
      this.state = "waiting";
      next();
    }, seconds * 1000);
    next();
  }

  fail(status, body) {
    if (status === 401) document.dispatchEvent(new CustomEvent("key-refused"));
    this.state = "failed";
    this.bar.hidden = true;
    this.again.hidden = status !== 0 && status !== 401 && status < 500; // the same file would be refused again
    this.element.classList.add("failed");
    setText(this.text, body?.detail ?? `The service answered with status ${status}.`);
    setText(this.stop, "Remove");
    this.stop.setAttribute("aria-label", `Remove ${this.file.name} from this list`);
    announce(`${this.file.name} was not taken: ${this.text.textContent}`);
    next();
  }

  retry() {
    Object.assign(this, { state: "waiting", unheard: 0 });
    this.element.classList.remove("failed");
    this.bar.hidden = false;
    this.again.hidden = true;
    setText(this.stop, "Cancel");
    this.stop.setAttribute("aria-label", `Cancel the upload of ${this.file.name}`);
    this.stop.focus();
    next();
  }

  cancel() {
    clearTimeout(this.timer);
    this.request?.abort();
    announce(`${this.file.name} is not uploaded`);
    drop(this);
  }
}

/** crypto.randomUUID is not there on pages without https. */
function randomKey() {
  return [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}
