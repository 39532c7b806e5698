// The health of every part, for operators: now, over the last hour, and as tables.

import { lineChart } from "./chart.js";
import { el, problemLine, setText } from "./dom.js";
import { watchHealth } from "./samples.js";
import { bytes, number, span, timeOfDay } from "./units.js";

const HOUR_S = 3600;
const ms = (value) => `${value < 10 ? value.toFixed(1) : Math.round(value)} ms`;
/** [name, measure, shown, the extreme that matters; usually the highest]. */
const MEASURES = [
  ["Waiting", (health) => health.jobs.pending, number],
  ["Working", (health) => health.workers.busy, number],
  ["Oldest waiting", (health) => (health.jobs.pending === undefined ? null : health.jobs.oldest_pending_seconds ?? 0), (value) => (value ? span(value) : "none")],
  ["Dead letters", (health) => health.jobs.dead_letters, number],
  ["Database", (health) => health.database.latency_ms, ms],
  ["Redis", (health) => health.redis.latency_ms, ms],
  ["Models in memory", (health) => health.devices.reduce((sum, device) => sum + (device.memory_used ?? 0), 0), bytes],
  ["Free storage", (health) => health.storage.free_bytes, bytes, Math.min],
];

export function health({ main }) {
  document.title = "Health – Whisper Queue";
  const problem = problemLine();
  const summary = el("p", { class: "summary" });
  const flower = el("p", { class: "note", hidden: true });
  const cards = el("div", { class: "cards" });
  const parts = el("div", { class: "parts" });
  const history = el("tbody");
  const table = el(
    "details", {}, el("summary", {}, "The last hour as a table"),
    el("div", { class: "wide", tabindex: "0", role: "region", "aria-label": "The last hour" },
      el("table", {}, el("thead", {}, tableRow("th", ["Time", ...MEASURES.map(([name]) => name)])), history)),
  );
  main.append(el("h1", {}, "Health"), problem.element, summary, flower, cards, table, parts);

  function show(samples, trouble) {
    problem.show(trouble);
    drawCards(cards, samples);
    if (table.open) fillHistory(history, samples);
    const now = samples.at(-1).health;
    if (!now) return;
    summarise(summary, now);
    if (now.flower_url && flower.hidden) {
      flower.replaceChildren("The tasks of each worker: ", el("a", { href: now.flower_url, rel: "noreferrer" }, "Flower"));
      flower.hidden = false;
    }
    if (!parts.contains(document.activeElement)) parts.replaceChildren(...partsOf(now));
  }

  let seen = [];
  table.addEventListener("toggle", () => fillHistory(history, seen));
  const close = watchHealth((samples, trouble) => {
    seen = samples;
    show(samples, trouble);
  });
  return { close };
}

/** Nothing is well while a recording that failed for good waits for somebody. */
function summarise(summary, { status, version, problems, jobs }) {
  const dead = jobs.dead_letters ?? 0;
  const waits = dead === 1 ? "1 recording has failed for good and waits" : `${number(dead)} recordings have failed for good and wait`;
  const well = dead ? `Every part works, but ${waits} for you.` : "All is well.";
  const text = `${status === "ok" ? well : `Not well: ${problems.join("; ")}.`} Version ${version}.`;
  summary.dataset.status = status === "ok" && dead ? "attention" : status;
  if (summary.firstChild?.data === text) return;
  summary.replaceChildren(text, dead ? el("a", { href: "#/letters" }, "See the dead letters") : "");
}

function drawCards(cards, samples) {
  const seconds = (samples.at(-1).at - samples[0].at) / 1000;
  const period = `last ${seconds > 0.95 * HOUR_S ? "hour" : span(Math.max(1, seconds))}`;
  const made = MEASURES.map(([name, measure, shown, extreme = Math.max]) => {
    const points = samples.map(({ at, health: told }) => ({ at, value: valueOf(told, measure) }));
    const values = points.map((point) => point.value).filter((value) => value !== null);
    const now = points.at(-1).value;
    const text = now === null ? "–" : shown(now);
    const most = values.length ? shown(extreme(...values)) : "–";
    const note = `${extreme === Math.max ? "Peak" : "Lowest"}, ${period}: ${most}`;
    return el("section", { class: "card" }, el("h2", {}, name), el("p", { class: "value" }, text),
      lineChart(points, { label: `${name}: now ${text}. ${note}`, floor: 1 }), el("p", { class: "note" }, note));
  });
  cards.replaceChildren(...made);
}

const valueOf = (told, measure) => (told ? measure(told) ?? null : null);

/** A row a minute, the newest first. */
function fillHistory(body, samples) {
  const minutes = new Map(samples.map((sample) => [Math.floor(sample.at / 60_000), sample]));
  const rows = [...minutes.values()].reverse().map(({ at, health: told }) => {
    const values = MEASURES.map(([, measure, shown]) => {
      const value = valueOf(told, measure);
      return value === null ? "–" : shown(value);
    });
    return tableRow("td", [timeOfDay(at), ...values]);
  });
  body.replaceChildren(...rows);
}

function partsOf(now) {
  const { alive, concurrency, busy, ill } = now.workers;
  const well = (part) => (part.ok ? "answers" : "away");
  const pool = now.model_pool;
  return [
    part("Parts", ["Part", "State"], [
      ["Database", well(now.database)], ["Redis", `${well(now.redis)}, ${size(now.redis.used_memory_bytes)}`],
      ["Relay", now.relay.ok ? `${now.relay.alive} alive` : "away"], ["Storage", `${well(now.storage)}, ${size(now.storage.free_bytes)} free`],
      ["Workers", `${alive} alive, ${busy} of ${concurrency} at work`],
      ...ill.map(({ worker, since, message }) => [`Ill: ${worker}`, `since ${timeOfDay(Date.parse(since))}: ${message}`]),
    ]),
    part("Queues", ["Queue", "Depth", "Served by"], Object.entries(now.queues).map(
      ([name, depth]) => [name, number(depth), number(now.workers.by_queue[name] ?? 0)])),
    part("Models", ["Model", "Device", "Memory", "Uses"], pool.loaded.map(
      (model) => [model.size, model.device, size(model.memory_bytes), number(model.use_count)]),
      pool.hit_rate === null ? "" : `${Math.round(pool.hit_rate * 100)} % of all uses found their model loaded.`),
    part("Devices", ["Device", "Worker", "Used", "Free"], now.devices.map(
      (device) => [device.device, device.worker, size(device.memory_used), size(device.memory_free)])),
  ];
}

const size = (value) => (value === null || value === undefined ? "–" : bytes(value));

function part(title, columns, rows, note = "") {
  const body = rows.length ? rows.map((cells) => tableRow("td", cells)) : el("tr", {}, el("td", { colspan: columns.length }, "none"));
  return el(
    "section", { class: "part" }, el("h2", {}, title),
    el("div", { class: "wide", tabindex: "0", role: "region", "aria-label": title }, el("table", {}, el("thead", {}, tableRow("th", columns)), el("tbody", {}, body))),
    note && el("p", { class: "note" }, note),
  );
}

function tableRow(tag, cells) {
  return el("tr", {}, cells.map((cell) => el(tag, tag === "th" ? { scope: "col" } : {}, String(cell))));
}
