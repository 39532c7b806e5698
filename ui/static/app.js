// The frame: who is signed in, and which view the address names. Each view has an address, so back and reload work.

import { role } from "./api.js";
import { confirm } from "./dialog.js";
import { el } from "./dom.js";
import { health } from "./health.js";
import { jobs } from "./jobs.js";
import { letters } from "./letters.js";
import { forget, key } from "./session.js";
import { signIn } from "./signin.js";
import { transcript } from "./transcript.js";
import * as uploads from "./upload.js";

const VIEWS = [
  [/^\/$/, "jobs", jobs],
  [/^\/jobs\/([0-9a-f-]{36})$/, "jobs", transcript],
  [/^\/letters$/, "letters", letters],
  [/^\/health$/, "health", health],
];
const main = document.getElementById("main");
let current = { close() {}, isUnsaved: () => false };
let shown = null; // the hash of what is shown

/** `open` makes a view from {parameters, query, main}; it is {title, close(), isUnsaved()?}. */
function show({ focus }) {
  shown = location.hash;
  current.close();
  main.replaceChildren();
  const [path, search = ""] = shown.replace(/^#/, "").split("?");
  const [name, open, parameters] = found(path || "/");
  for (const link of document.querySelectorAll("nav [data-view]")) {
    if (link.dataset.view === name) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  current = { isUnsaved: () => false, ...open({ main, parameters, query: new URLSearchParams(search) }) };
  if (focus) main.focus();
  window.scrollTo(0, 0);
}

function found(path) {
  for (const [pattern, name, open] of VIEWS) {
    const match = pattern.exec(path);
    if (match) return [name, open, match.slice(1)];
  }
  return ["", nowhere, []];
}

function nowhere({ main: place }) {
  document.title = "Not found – Whisper Queue";
  place.append(el("h1", {}, "Nothing is here"), el("p", {}, el("a", { href: "#/" }, "To the recordings")));
  return { close() {} };
}

async function onHash() {
  const wanted = location.hash;
  if (wanted === shown || (wanted && !wanted.startsWith("#/"))) return;
  if (current.isUnsaved()) {
    history.replaceState(null, "", shown || "#/");
    const question = { title: "Leave without saving?", text: "There are edits that are not saved.", action: "Discard them" };
    if (!(await confirm({ ...question, danger: true }))) return;
    history.replaceState(null, "", wanted);
  }
  show({ focus: true });
}

function setRole(found) {
  for (const link of document.querySelectorAll(".for-admins")) link.hidden = found !== "admin";
  document.getElementById("sign-out").hidden = !key();
}

/** Again after a key was refused: the view under the dialog goes on where nothing would be lost. */
async function enter() {
  setRole((await role()) || (await signIn()));
  if (!current.isUnsaved()) show({ focus: false });
}

async function start() {
  main.replaceChildren();
  try {
    await enter();
  } catch (problem) {
    main.replaceChildren(
      el("h1", {}, "Not at hand"), el("p", { class: "problem", role: "alert" }, problem.message),
      el("button", { type: "button", onclick: start }, "Try again"),
    );
    return;
  }
  document.addEventListener("key-refused", onRefused);
}

let asking = false;

async function onRefused() {
  if (asking) return;
  asking = true;
  try {
    setRole(await signIn());
    if (!current.isUnsaved()) show({ focus: true });
  } finally {
    asking = false;
  }
}

window.addEventListener("hashchange", onHash);
document.addEventListener("address-replaced", () => {
  shown = location.hash;
});
window.addEventListener("beforeunload", (event) => {
  if (current.isUnsaved() || uploads.isBusy()) event.preventDefault();
});
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault();
  main.focus();
});
document.getElementById("sign-out").addEventListener("click", () => {
  forget();
  location.hash = "#/";
  location.reload();
});
start();
