// Signing in with an API key. A dialog over what is there, so that an expired key costs nobody their edits.

import { role } from "./api.js";
import { el, field } from "./dom.js";
import { forget, keep } from "./session.js";

let waiting = null;

/** Resolves to the role once a key is good. */
export function signIn() {
  waiting ??= ask().finally(() => {
    waiting = null;
  });
  return waiting;
}

function ask() {
  return new Promise((resolve) => {
    const key = el("input", { type: "password", required: true, autocomplete: "current-password", autofocus: true });
    const always = el("input", { type: "checkbox" });
    const problem = el("p", { class: "problem", role: "alert", hidden: true });
    const onsubmit = async (event) => {
      event.preventDefault();
      problem.hidden = true;
      const found = await tried(key.value.trim(), always.checked).catch((error) => error);
      if (found === "admin" || found === "user") {
        dialog.close();
        dialog.remove();
        resolve(found);
        return;
      }
      problem.textContent = found ? found.message : "This key is unknown, expired or revoked. Is it complete?";
      problem.hidden = false;
      key.select();
    };
    const form = el(
      "form", { onsubmit }, el("h2", { id: "sign-in" }, "Sign in"),
      el("p", {}, "This service needs an API key. Its operator makes them: ", el("code", {}, "python -m admin keys create NAME")),
      field("API key", key), el("label", { class: "check" }, always, " Keep me signed in on this device"),
      problem, el("div", { class: "buttons" }, el("button", { class: "primary" }, "Sign in")),
    );
    const dialog = el("dialog", { "aria-labelledby": "sign-in", oncancel: (event) => event.preventDefault() }, form);
    document.body.append(dialog);
    dialog.showModal();
  });
}

async function tried(key, always) {
  keep(key, { always });
  const found = await role();
  if (!found) forget();
  return found;
}
