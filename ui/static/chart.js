// A line over time as a small SVG. What it shows is said in its label, and stands in a table beside it.

const NS = "http://www.w3.org/2000/svg";
const [WIDTH, HEIGHT, TOP] = [240, 56, 4];

/** `points`: [{at (ms), value or null}], in time order; between values that are missing there is no line. */
export function lineChart(points, { label, from, to, floor = 0 }) {
  const values = points.map((point) => point.value).filter((value) => value !== null);
  const highest = Math.max(...values, floor, Number.MIN_VALUE);
  const x = (at) => (((at - from) / Math.max(1, to - from)) * WIDTH).toFixed(1);
  const y = (value) => (HEIGHT - (value / highest) * (HEIGHT - TOP)).toFixed(1);
  const path = shape("path", { d: pathOf(points, x, y), class: "line" });
  const base = shape("line", { x1: 0, x2: WIDTH, y1: HEIGHT, y2: HEIGHT, class: "base" });
  const svg = shape("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT + 1}`, preserveAspectRatio: "none", role: "img", "aria-label": label, class: "chart" });
  svg.append(base, path);
  return svg;
}

function pathOf(points, x, y) {
  let pen = "M";
  const steps = [];
  for (const { at, value } of points) {
    if (value === null) {
      pen = "M";
      continue;
    }
    steps.push(`${pen}${x(at)} ${y(value)}`);
    pen = "L";
  }
  return steps.length === 1 ? `${steps[0]}h0.01` : steps.join("");
}

function shape(tag, attributes) {
  const element = document.createElementNS(NS, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}
