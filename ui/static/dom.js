// Elements. Text from the service or a file name becomes a text node: the policy of this page lets nothing become markup.

/** `el("a", {href, onclick}, "text", child)`; null, undefined and false leave an attribute or a child out. */
export function el(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** Only where it differs: a screen reader, a selection and the layout notice each change. */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

export function button(label, onclick, attributes = {}) {
  return el("button", { type: "button", onclick, ...attributes }, label);
}

/** A labelled control: `field("Model", select)`. */
export function field(label, control) {
  return el("label", { class: "field" }, el("span", {}, label), control);
}

export function select(options, attributes = {}) {
  return el("select", attributes, options.map(([value, label]) => el("option", { value }, label)));
}

/** Says it to who cannot see the page. */
export function announce(text) {
  document.getElementById("announcer").textContent = text;
}

/** A line for what went wrong, with `show(problem or null)`. */
export function problemLine() {
  const line = el("p", { class: "problem", role: "alert", hidden: true });
  const show = (problem) => {
    line.hidden = !problem;
    setText(line, problem ? problem.message : "");
  };
  return { element: line, show };
}

let count = 0;

/** For aria-labelledby and its like. */
export function uniqueId(name) {
  count += 1;
  return `${name}-${count}`;
}
