// The transcript as a file, or on the clipboard. A link could not carry the key, so a file is fetched, then handed over.

import { call, query } from "./api.js";
import { announce, button, el, field, select, uniqueId } from "./dom.js";

const FORMATS = ["txt", "srt", "vtt", "tsv", "lrc", "json"];
const LAYOUT = { // of srt and vtt: label, and what the field is like
  max_line_width: ["Characters a line", { min: 10, max: 200 }],
  max_line_count: ["Lines", { min: 1, max: 10 }],
  max_words_per_line: ["Words a line", { min: 1, max: 50 }],
  max_cue_seconds: ["Seconds at most", { min: 0.5, max: 20, step: 0.5 }],
};
const WORDS = [["", "None"], ["highlight_words", "Highlighted one by one"], ["word_level", "With their times (vtt, lrc)"]];
const WORDS_OF = { srt: ["highlight_words"], vtt: ["highlight_words", "word_level"], lrc: ["word_level"] };
const LET_GO_MS = 60_000;

/** `text()`: what is copied; `isCorrected()`: whether somebody has made corrections. */
export function downloads(job, { text, isCorrected, onProblem }) {
  const corrected = el("input", { type: "checkbox", checked: true });
  const choice = el("label", { class: "check", hidden: true }, corrected, "with corrections");
  const subtitles = subtitleOptions();
  const fetched = (format) => () => download(job, format, isCorrected() && corrected.checked, subtitles.values(format)).then(
    () => onProblem(null), onProblem,
  );
  const files = FORMATS.map((format) => button(format.toUpperCase(), fetched(format), { "aria-label": `Download ${format}` }));
  const copy = button("Copy text", () => copied(text(corrected.checked)).then(() => announce("Copied"), onProblem));
  const id = uniqueId("downloads");
  const element = el(
    "div", { class: "downloads", role: "group", "aria-labelledby": id }, el("span", { id, class: "label" }, "Download"),
    el("div", { class: "joined" }, files), copy, choice, subtitles.element,
  );
  const update = () => {
    choice.hidden = !isCorrected();
  };
  return { element, update };
}

/** `{element, values(format)}`: the API's parameters, of those that this format takes. */
function subtitleOptions() {
  const sizes = Object.entries(LAYOUT).map(([name, [label, limits]]) => [name, label, el("input", { type: "number", ...limits })]);
  const words = select(WORDS);
  const fields = [...sizes.map(([, label, input]) => field(label, input)), field("Marked words", words)];
  const element = el("details", { class: "layout" }, el("summary", {}, "Subtitle options"), fields);
  const values = (format) => ({
    ...(format === "srt" || format === "vtt" ? Object.fromEntries(sizes.map(([name, , input]) => [name, input.value])) : {}),
    ...(WORDS_OF[format]?.includes(words.value) ? { [words.value]: "true" } : {}),
  });
  return { element, values };
}

async function download(job, format, corrected, layout) {
  const path = query(`transcribe/${job.job_id}/result`, { format, corrected: corrected ? "true" : "", ...layout });
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
