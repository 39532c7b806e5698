// What the text may lack, as the service says it, with the places to listen to.

import { button, el } from "./dom.js";
import { clock } from "./units.js";

const MOST = 20; // places that are shown of one warning

/** `{element, update(warnings)}`; `seek(seconds)` is called with the beginning of a place. */
export function warnings(seek) {
  const list = el("ul");
  const element = el("section", { class: "warnings", "aria-label": "Warnings", hidden: true }, list);
  const update = (found = []) => {
    list.replaceChildren(...found.map((warning) => el("li", {}, el("p", {}, warning.message ?? warning.code), placesOf(warning.ranges ?? [], seek))));
    element.hidden = found.length === 0;
  };
  return { element, update };
}

/** `ranges`: [[start, end], …] in seconds. */
function placesOf(ranges, seek) {
  if (!ranges.length) return null;
  const links = ranges.slice(0, MOST).map(([start, end]) => {
    const text = `${clock(start)}–${clock(end)}`;
    return button(text, () => seek(start), { class: "quiet", "aria-label": `Play from ${text}` });
  });
  const rest = ranges.length > MOST ? el("span", { class: "note" }, `and ${ranges.length - MOST} more`) : null;
  return el("div", { class: "buttons" }, links, rest);
}
