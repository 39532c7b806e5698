// What is asked for with each recording, folded away until it is wanted. The choices stay for the next visit, so the
// fold says which there are.

import { ask } from "./api.js";
import { button, el, field, select, setText } from "./dom.js";
import { LANGUAGES } from "./languages.js";
import { languageName } from "./units.js";

const NAME = "options";
const USUAL = { task: "transcribe", priority: "normal", channels: "mix", vad_filter: "true", word_timestamps: "true" };
const OF_API = { ...USUAL, word_timestamps: "false" }; // what it takes where nothing is sent

/** `{element, values()}`: values as the API's form fields, without those that are its defaults. */
export function optionsForm() {
  const fields = fieldsOf();
  const names = Object.keys(fields);
  const chosen = el("span", { class: "chosen" });
  const reset = button("Use the defaults", () => {
    put({});
    changed();
  }, { class: "quiet" });
  const element = el(
    "details", { class: "options" }, el("summary", {}, "Options", chosen),
    el("fieldset", {}, el("legend", { class: "unseen" }, "Options"), names.map((name) => fields[name].element), reset),
  );

  const values = () => Object.fromEntries(names.map((name) => [name, valueOf(fields[name].control)]));
  const isShown = (name) => !fields[name].element.hidden;

  function put(given) {
    for (const name of names) choose(fields[name].control, given[name] ?? USUAL[name] ?? "");
    show();
  }

  function show() {
    fields.languages.element.hidden = !["", "multi"].includes(fields.language.control.value);
    const told = names.filter((name) => isShown(name) && valueOf(fields[name].control) !== (USUAL[name] ?? ""));
    setText(chosen, told.map((name) => fields[name].told()).join(" · "));
    reset.hidden = told.length === 0;
  }

  function changed() {
    localStorage.setItem(NAME, JSON.stringify(values()));
    show();
  }

  const before = stored();
  put(before);
  element.addEventListener("change", changed);
  addModels(fields.model_size.control).then(() => {
    choose(fields.model_size.control, before.model_size ?? "");
    show();
  }, () => {}); // without the list, the default is left
  const asked = () => Object.entries(values()).filter(([name, value]) => isShown(name) && value !== (OF_API[name] ?? ""));
  return { element, values: () => Object.fromEntries(asked()) };
}

/** By the names of the API: {element, control, told()}, the last for the closed fold. */
function fieldsOf() {
  const text = (attributes) => el("input", { type: "text", autocomplete: "off", spellcheck: "false", ...attributes });
  const threshold = el("input", { type: "number", min: 0.05, max: 0.95, step: 0.05, placeholder: "0.5" });
  return {
    model_size: chosenFrom("Model", [["", "Default"]]),
    language: chosenFrom("Language", [["", "Detect"], ["multi", "Several languages"], ...languages()]),
    languages: written("Languages expected", text({ placeholder: "any, or: en, de" })),
    task: chosenFrom("Task", [["transcribe", "Transcribe"], ["translate", "Translate to English"]]),
    priority: chosenFrom("Priority", [["normal", "Normal"], ["high", "High"]]),
    audio_track: written("Sound track", text({ placeholder: "number or language", maxlength: 40 })),
    channels: chosenFrom("Channels", [["mix", "Mixed"], ["separate", "Each by itself"]]),
    vad_threshold: written("Speech threshold", threshold),
    vad_filter: ticked("Skip what is not speech"),
    word_timestamps: ticked("Word timestamps"),
  };
}

function chosenFrom(label, options) {
  const control = select(options);
  return { control, element: field(label, control), told: () => `${label}: ${control.selectedOptions[0].text}` };
}

function written(label, control) {
  return { control, element: field(label, control), told: () => `${label}: ${control.value.trim()}` };
}

function ticked(label) {
  const control = el("input", { type: "checkbox" });
  return { control, element: el("label", { class: "check" }, control, label), told: () => `${label}: ${control.checked ? "yes" : "no"}` };
}

const valueOf = (control) => (control.type === "checkbox" ? String(control.checked) : control.value.trim());

function choose(control, value) {
  if (control.type === "checkbox") control.checked = value === "true";
  else control.value = value;
  if (control.selectedIndex < 0) control.selectedIndex = 0;
}

function stored() {
  try {
    return JSON.parse(localStorage.getItem(NAME) ?? "{}") ?? {};
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
