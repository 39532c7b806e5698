// One segment of a transcript: its time, its words, and, while it is being corrected, a place to write.

import { ask } from "./api.js";
import { announce, button, el, problemLine } from "./dom.js";
import { clock } from "./units.js";

/** `on` has seek(seconds), time() and changed(); `editable` once the job is completed; `label` stands above the text. */
export class Segment {
  constructor(jobId, data, on, { editable, label = "" }) {
    this.jobId = jobId;
    this.on = on;
    this.words = [];
    this.area = null;
    this.time = button(clock(data.start), () => on.seek(this.data.start), {
      class: "time", "aria-label": `Play from ${clock(data.start)}`, "aria-keyshortcuts": "ArrowLeft ArrowRight",
    });
    this.time.addEventListener("keydown", (event) => this.step(event));
    this.text = el("p", { class: "text", dir: "auto", lang: data.language, onclick: (event) => this.clicked(event) });
    this.edit = button("Edit", () => this.open(), { class: "quiet dim", "aria-label": `Edit the text at ${clock(data.start)}` });
    this.edit.hidden = !editable;
    const said = label && el("p", { class: "label" }, label);
    this.element = el("li", { id: `segment-${data.id}` }, said, this.time, this.text, this.edit);
    this.show(data);
  }

  get said() {
    return this.data.corrected_text ?? this.data.text;
  }

  get isUnsaved() {
    return this.area !== null && this.area.value.trim() !== this.said;
  }

  show(data) {
    this.data = data;
    const isCorrected = data.corrected_text !== null;
    this.element.classList.toggle("corrected", isCorrected);
    this.words = isCorrected ? [] : (data.words ?? []).map(wordOf);
    if (this.words.length) this.text.replaceChildren(...this.words.flatMap(({ space, element }) => [space, element]));
    else this.text.replaceChildren(this.said || "(nothing was said)");
    this.original?.remove();
    this.original = isCorrected ? originalOf(data) : null;
    if (this.original) this.element.append(this.original);
  }

  clicked(event) {
    if (String(window.getSelection())) return; // whoever selects text wants to copy it
    const word = this.words.find(({ element }) => element === event.target);
    this.on.seek(word ? word.start : this.data.start);
  }

  /** Word by word with the arrow keys: what a click on a word is with a mouse. */
  step(event) {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!by || !this.words.length) return;
    event.preventDefault();
    const at = this.words.findLastIndex((word) => word.start <= this.on.time() + 0.01);
    const word = this.words[Math.min(this.words.length - 1, Math.max(0, at + by))];
    this.on.seek(word.start);
    announce(word.word);
  }

  /** Marks the word that is heard at this time; null: none. */
  mark(seconds) {
    const word = seconds === null ? undefined : this.words.findLast(({ start }) => start <= seconds);
    if (word === this.marked) return;
    this.marked?.element.classList.remove("now");
    word?.element.classList.add("now");
    this.marked = word;
  }

  open() {
    this.problem = problemLine();
    this.area = el("textarea", { "aria-label": `Text at ${clock(this.data.start)}`, maxlength: 5000, rows: 2, dir: "auto" });
    this.area.value = this.said;
    this.area.addEventListener("keydown", (event) => this.typed(event));
    const restore = this.data.corrected_text === null ? null : button("Restore the original", () => this.save(null));
    this.form = el(
      "div", { class: "edit" }, this.area, this.problem.element,
      el("div", { class: "buttons" }, button("Save", () => this.save(this.area.value), { class: "primary" }),
        button("Cancel", () => this.close()), restore, el("span", { class: "note" }, "Ctrl + Enter saves, Escape cancels")),
    );
    [this.text.hidden, this.edit.hidden] = [true, true];
    this.time.after(this.form);
    this.area.focus();
  }

  typed(event) {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) this.save(this.area.value);
    if (event.key === "Escape" && !this.isUnsaved) this.close();
  }

  async save(text) {
    try {
      const path = `transcribe/${this.jobId}/segments/${this.data.id}`;
      this.show(await ask(path, { method: "PATCH", json: { text } }));
    } catch (problem) {
      this.problem.show(problem);
      return;
    }
    announce(text === null ? "The original is restored" : "Saved");
    this.close();
    this.on.changed();
  }

  close() {
    this.form.remove();
    this.area = null;
    [this.text.hidden, this.edit.hidden] = [false, false];
    this.edit.focus();
  }
}

/** Whisper's words come with the space before them, if their language has any; the mark leaves it out. */
function wordOf(word, index) {
  const text = word.word.trimStart();
  const space = index ? word.word.slice(0, word.word.length - text.length) : "";
  return { ...word, space, element: el("span", { class: "word" }, text) };
}

function originalOf(data) {
  return el("details", {}, el("summary", {}, "corrected"), el("p", {}, "The machine heard: ", el("q", {}, data.text)));
}
