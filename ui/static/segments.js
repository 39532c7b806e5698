// The text of a recording: segments in time order, the one that is heard marked as it plays.

import { el } from "./dom.js";
import { Segment } from "./segment.js";
import { languageName } from "./units.js";

/** `on` has seek(seconds), time() and changed(). */
export function segments(jobId, on) {
  const list = el("ol", { class: "segments", "aria-label": "Transcript" });
  let all = [];
  let marked = null;
  let follows = true;

  /** `language`: of the whole recording, where it is known. */
  function add(data, { editable, language = null }) {
    const known = new Set(all.map((one) => one.data.id));
    let before = all.at(-1)?.data ?? { language };
    const made = data.filter(({ id }) => !known.has(id)).map((one) => {
      const label = labelOf(one, before);
      before = one;
      return new Segment(jobId, one, on, { editable, label });
    });
    all = all.concat(made);
    list.append(...made.map((one) => one.element));
  }

  /** Called with each frame: the work is a search in order, and changes only where the segment or word does. */
  function mark(seconds) {
    const now = at(seconds);
    if (now !== marked) {
      marked?.element.removeAttribute("aria-current");
      marked?.mark(null);
      now?.element.setAttribute("aria-current", "true");
      marked = now;
      if (now && follows && !isUnsaved()) now.element.scrollIntoView({ block: "nearest" });
    }
    now?.mark(seconds);
  }

  function at(seconds) {
    let [low, high] = [0, all.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (all[middle].data.start <= seconds) low = middle + 1;
      else high = middle;
    }
    return all[low - 1] ?? null;
  }

  const isUnsaved = () => all.some((one) => one.isUnsaved);
  return {
    element: list,
    add,
    mark,
    isUnsaved,
    follow: (wanted) => {
      follows = wanted;
    },
    last: () => all.at(-1)?.data.id ?? -1,
    texts: () => all.map((one) => one.text),
    text: (corrected) => all.map((one) => (corrected ? one.said : one.data.text)).filter(Boolean).join("\n"),
    isCorrected: () => all.some((one) => one.data.corrected_text !== null),
    clear: () => {
      all = [];
      marked = null;
      list.replaceChildren();
    },
  };
}

/** Where the channel or the language changes. */
function labelOf(data, before) {
  const channel = (data.channel ?? null) !== null && data.channel !== before.channel && `Channel ${data.channel + 1}`;
  const language = data.language && before.language && data.language !== before.language && languageName(data.language);
  return [channel, language].filter(Boolean).join(" · ");
}
