// A line over time as a small SVG. What it shows is said in its label, and stands in a table beside it.

import { shape } from "./icons.js";

const [WIDTH, HEIGHT, TOP] = [240, 56, 4];

/** `points`: [{at (ms), value or null}], in time order, over the whole width; where values are missing there is no line. */
export function lineChart(points, { label, floor = 0 }) {
  const values = points.map((point) => point.value).filter((value) => value !== null);
  const highest = Math.max(...values, floor, Number.MIN_VALUE);
  const [from, to] = [points[0].at, points.at(-1).at];
  const x = (at) => (((at - from) / Math.max(1, to - from)) * WIDTH).toFixed(1);
  const y = (value) => (HEIGHT - (value / highest) * (HEIGHT - TOP)).toFixed(1);
  const shown = points.length > 1 ? points : [points[0], { at: from + 1, value: points[0].value }];
  const runs = runsOf(shown).map((run) => run.map(({ at, value }) => [x(at), y(value)]));
  const svg = shape("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT + 1}`, preserveAspectRatio: "none", role: "img", "aria-label": label, class: "chart" });
  svg.append(
    shape("line", { x1: 0, x2: WIDTH, y1: HEIGHT, y2: HEIGHT, class: "base" }),
    shape("path", { d: runs.map(areaOf).join(""), class: "area" }),
    shape("path", { d: runs.map(lineOf).join(""), class: "line" }),
  );
  return svg;
}

/** Stretches without a missing value. */
function runsOf(points) {
  const runs = [[]];
  for (const point of points) {
    if (point.value === null) runs.push([]);
    else runs.at(-1).push(point);
  }
  return runs.filter((run) => run.length);
}

const lineOf = (run) => `M${run.map((place) => place.join(" ")).join("L")}${run.length === 1 ? "h0.01" : ""}`;
const areaOf = (run) => `M${run[0][0]} ${HEIGHT}L${run.map((place) => place.join(" ")).join("L")}V${HEIGHT}Z`;
