// Where recordings come in: dropped, picked, or spoken, with the options that they are transcribed with.

import { button, el } from "./dom.js";
import { droppedFiles, visible } from "./files.js";
import { optionsForm } from "./options.js";
import { recorder } from "./recorder.js";
import * as uploads from "./upload.js";

export function intake() {
  const options = optionsForm();
  const take = (files) => uploads.send(files, options.values());
  const voice = recorder((file) => take([file]));
  const files = picker("Choose recordings", { multiple: true }, take);
  const folder = picker("Choose a folder of recordings", { webkitdirectory: true }, take);
  const drop = el(
    "div", { class: "drop" }, el("p", {}, "Drop recordings or folders here, audio or video, or"),
    el("div", { class: "buttons" }, files, folder, voice.controls),
  );
  const element = el(
    "section", { class: "intake", "aria-label": "New recordings" }, drop, voice.below, options.element, uploads.list,
  );
  const stopDrops = takeDrops(element, take);
  const close = () => {
    stopDrops();
    voice.close();
  };
  return { element, close, isUnsaved: voice.isUnsaved };
}

/** A button in front of the browser's own input, which cannot be styled. */
function picker(label, attributes, take) {
  const input = el("input", { type: "file", "aria-label": label, hidden: true, ...attributes });
  input.addEventListener("change", () => {
    take(visible([...input.files]));
    input.value = "";
  });
  const name = attributes.multiple ? "Choose files" : "Choose a folder";
  return [button(name, () => input.click(), { class: attributes.multiple ? "primary" : null }), input];
}

/** Anywhere on the page: a file that misses its mark would replace the page. */
function takeDrops(element, take) {
  const over = (event) => {
    if (!event.dataTransfer?.types.includes("Files")) return;
    event.preventDefault();
    element.classList.add("over");
  };
  const leave = (event) => event.relatedTarget === null && element.classList.remove("over");
  const dropped = async (event) => {
    event.preventDefault();
    element.classList.remove("over");
    take(await droppedFiles(event.dataTransfer));
  };
  const listening = [["dragover", over], ["dragleave", leave], ["drop", dropped]];
  for (const [name, listener] of listening) document.addEventListener(name, listener);
  return () => listening.forEach(([name, listener]) => document.removeEventListener(name, listener));
}
