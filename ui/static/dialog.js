// Questions that must be answered first. The browser keeps the focus inside, and gives it back where it was.

import { button, el, uniqueId } from "./dom.js";

/** Whether the reader agreed. */
export function confirm({ title, text, action, danger = false }) {
  return new Promise((resolve) => {
    const id = uniqueId("dialog");
    const no = button("Keep it as it is", () => dialog.close(), { autofocus: true });
    const yes = button(action, () => dialog.close("yes"), { class: danger ? "danger" : "primary" });
    const dialog = el(
      "dialog", { "aria-labelledby": id, "aria-describedby": `${id}-text` },
      el("h2", { id }, title), el("p", { id: `${id}-text` }, text), el("div", { class: "buttons" }, no, yes),
    );
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(dialog.returnValue === "yes");
    });
    document.body.append(dialog);
    dialog.showModal();
  });
}
