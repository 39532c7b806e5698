// What is asked for with each recording. The choices stay for the next visit.

import { ask } from "./api.js";
import { el, field, select } from "./dom.js";
import { LANGUAGES } from "./languages.js";
import { languageName } from "./units.js";

const NAME = "options";
const DEFAULTS = { model_size: "", language: "", task: "transcribe", priority: "normal", word_timestamps: "true" };

/** `{element, values()}`: values as the API's form fields, without those that are its defaults. */
export function optionsForm() {
  const chosen = { ...DEFAULTS, ...stored() };
  const controls = {
    model_size: select([["", "Default"]], { name: "model_size" }),
    language: select([["", "Detect"], ...languages()], { name: "language" }),
    task: select([["transcribe", "Transcribe"], ["translate", "Translate to English"]], { name: "task" }),
    priority: select([["normal", "Normal"], ["high", "High"]], { name: "priority" }),
    word_timestamps: select([["true", "Yes"], ["false", "No"]], { name: "word_timestamps" }),
  };
  const labels = ["Model", "Language", "Task", "Priority", "Times of words"];
  const element = el(
    "fieldset", { class: "options" }, el("legend", { class: "unseen" }, "Options"),
    Object.values(controls).map((control, index) => field(labels[index], control)),
  );
  const values = () => Object.fromEntries(Object.entries(controls).map(([name, control]) => [name, control.value]));
  const put = () => Object.entries(controls).forEach(([name, control]) => choose(control, chosen[name]));
  put();
  element.addEventListener("change", () => localStorage.setItem(NAME, JSON.stringify(values())));
  addModels(controls.model_size).then(put, () => {}); // without the list, the default is left
  return { element, values: () => Object.fromEntries(Object.entries(values()).filter(([, value]) => value !== "")) };
}

function choose(control, value) {
  control.value = value;
  if (control.selectedIndex < 0) control.selectedIndex = 0;
}

function stored() {
  try {
    return JSON.parse(localStorage.getItem(NAME) ?? "{}");
  } catch {
    return {};
  }
}

function languages() {
  const named = LANGUAGES.map((code) => [code, languageName(code)]);
  return named.sort(([, one], [, other]) => one.localeCompare(other));
}

async function addModels(control) {
  const { data } = await ask("v1/models");
  const names = data.map((model) => model.id).filter((name) => name !== "whisper-1");
  control.append(...names.map((name) => el("option", { value: name }, name)));
}
