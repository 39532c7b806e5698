// The few icons of the page, drawn in the colour of the text. What a button does stands in its label, never only here.

const NS = "http://www.w3.org/2000/svg";
const SHAPES = {
  play: "M7 4.2v15.6L20 12z",
  pause: "M6 4.5h4.4v15H6zM13.6 4.5H18v15h-4.4z",
  more: "M5 12h.01M12 12h.01M19 12h.01",
  up: "M6 15l6-6 6 6",
  down: "M6 9l6 6 6-6",
};

export function icon(name) {
  const svg = shape("svg", { viewBox: "0 0 24 24", "aria-hidden": "true", class: `icon ${name}` });
  svg.append(shape("path", { d: SHAPES[name] }));
  return svg;
}

export function shape(tag, attributes) {
  const element = document.createElementNS(NS, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}
