// The transcript as a file, or on the clipboard. A link could not carry the key, so a file is fetched, then handed over.

import { call, query } from "./api.js";
import { announce, button, el } from "./dom.js";

const FORMATS = ["txt", "srt", "vtt", "tsv", "json"];
const LET_GO_MS = 60_000;

/** `text()`: what is copied; `isCorrected()`: whether somebody has made corrections. */
export function downloads(job, { text, isCorrected, onProblem }) {
  const corrected = el("input", { type: "checkbox", checked: true });
  const choice = el("label", { class: "check", hidden: true }, corrected, " with corrections");
  const fetched = (format) => () => download(job, format, isCorrected() && corrected.checked).then(
    () => onProblem(null), onProblem,
  );
  const files = FORMATS.map((format) => button(format.toUpperCase(), fetched(format), { "aria-label": `Download ${format}` }));
  const copy = button("Copy text", () => copied(text(corrected.checked)).then(() => announce("Copied"), onProblem));
  const element = el("div", { class: "downloads", role: "group", "aria-label": "Download" }, files, copy, choice);
  const update = () => {
    choice.hidden = !isCorrected();
  };
  return { element, update };
}

async function download(job, format, corrected) {
  const path = query(`transcribe/${job.job_id}/result`, { format, corrected: corrected ? "true" : "" });
  const answer = await call(path);
  const url = URL.createObjectURL(await answer.blob());
  el("a", { href: url, download: nameIn(answer.headers.get("Content-Disposition")) ?? `transcript.${format}` }).click();
  setTimeout(() => URL.revokeObjectURL(url), LET_GO_MS); // nothing tells when it has been saved
}

function nameIn(disposition) {
  const found = /filename\*=UTF-8''([^;]+)/.exec(disposition ?? "");
  return found && decodeURIComponent(found[1]);
}

async function copied(text) {
  if (navigator.clipboard) {
    await navigator.clipboard.writeText(text);
    return;
  }
  const area = el("textarea", { class: "unseen" }); // on pages without https there is no clipboard
  area.value = text;
  document.body.append(area);
  area.select();
  const done = document.execCommand("copy");
  area.remove();
  if (!done) throw new Error("The browser does not let this page copy. Select the text and copy it yourself.");
}
