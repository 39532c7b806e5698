// Finding words in the transcript. Matches are painted by the browser's highlights, so the text itself is not touched;
// browsers without them (before 2025) mark the whole segment.

import { button, el, setText } from "./dom.js";
import { icon } from "./icons.js";

const CAN_PAINT = "highlights" in (window.CSS ?? {});

/** `texts()`: the elements that are searched, in order. */
export function search(texts) {
  const input = el("input", { type: "search", placeholder: "Find in the text", "aria-label": "Find in the text" });
  const count = el("span", { class: "count", role: "status" });
  const back = button(icon("up"), () => go(-1), { class: "round", "aria-label": "Previous match", disabled: true });
  const on = button(icon("down"), () => go(1), { class: "round", "aria-label": "Next match", disabled: true });
  let matches = [];
  let at = -1;

  function refresh() {
    const words = input.value.trim();
    matches = words ? texts().flatMap((element) => rangesIn(element, words)) : [];
    at = Math.min(at, matches.length - 1);
    back.disabled = on.disabled = matches.length === 0;
    paint();
  }

  function go(step) {
    if (!matches.length) return;
    at = (at + step + matches.length) % matches.length;
    paint();
    matches[at].startContainer.parentElement.scrollIntoView({ block: "center" });
  }

  function paint() {
    const none = input.value.trim() ? "nothing found" : "";
    setText(count, matches.length ? `${at < 0 ? "" : `${at + 1} of `}${matches.length}` : none);
    for (const element of texts()) element.parentElement.classList.remove("match");
    if (CAN_PAINT) {
      CSS.highlights.set("match", new Highlight(...matches));
      CSS.highlights.set("match-now", new Highlight(...matches.slice(at, at < 0 ? 0 : at + 1)));
    } else {
      for (const range of matches) range.startContainer.parentElement.closest("li").classList.add("match");
    }
  }

  input.addEventListener("input", () => {
    at = -1;
    refresh();
    if (matches.length) go(1);
  });
  input.addEventListener("keydown", (event) => event.key === "Enter" && go(event.shiftKey ? -1 : 1));
  const close = () => CAN_PAINT && ["match", "match-now"].forEach((name) => CSS.highlights.delete(name));
  return { element: el("div", { class: "find", role: "search" }, input, back, on, count), refresh, close };
}

/** Case does not count; a match may go over the borders of words, each of which is an element. */
function rangesIn(element, words) {
  const nodes = [];
  const walker = document.createTreeWalker(element, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) nodes.push(walker.currentNode);
  const pattern = new RegExp(words.split(/\s+/).map((word) => word.replace(/[.*+?^${}()|[\]\\/-]/g, "\\$&")).join("\\s+"), "giu");
  return [...element.textContent.matchAll(pattern)].map((match) => {
    const range = new Range();
    range.setStart(...place(nodes, match.index));
    range.setEnd(...place(nodes, match.index + match[0].length));
    return range;
  });
}

function place(nodes, offset) {
  let left = offset;
  for (const node of nodes) {
    if (left <= node.length) return [node, left];
    left -= node.length;
  }
  return [nodes.at(-1), nodes.at(-1).length];
}
