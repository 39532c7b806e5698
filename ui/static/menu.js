// Actions that are seldom wanted, behind one button. Escape, a press elsewhere and leaving it by Tab close it.

import { button, el, uniqueId } from "./dom.js";
import { icon } from "./icons.js";

/** `actions`: buttons; a click on one closes the menu and gives the focus back before its own listener asks anything. */
export function menu(label, actions) {
  const id = uniqueId("menu");
  const list = el("div", { id, class: "actions", hidden: true }, actions);
  const opener = button(icon("more"), () => show(list.hidden), {
    class: "quiet round", "aria-label": label, title: label, "aria-expanded": "false", "aria-controls": id,
  });
  const element = el("div", { class: "menu" }, opener, list);
  const isOutside = (target) => target !== null && !element.contains(target);
  const pressed = (event) => isOutside(event.target) && show(false);

  function show(wanted) {
    list.hidden = !wanted;
    opener.setAttribute("aria-expanded", String(wanted));
    if (wanted) document.addEventListener("pointerdown", pressed);
    else document.removeEventListener("pointerdown", pressed);
    if (wanted) list.querySelector("button:not([hidden])")?.focus();
  }

  element.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || list.hidden) return;
    show(false);
    opener.focus();
  });
  element.addEventListener("focusout", (event) => isOutside(event.relatedTarget) && show(false));
  list.addEventListener("click", () => {
    show(false);
    opener.focus();
  }, { capture: true });
  return element;
}
