// Dead letters, for operators: what failed for good, why, and what to do about it.

import { ask, query } from "./api.js";
import { confirm } from "./dialog.js";
import { announce, button, el, field, problemLine, select, setText } from "./dom.js";
import { poll } from "./poll.js";
import { ago, moment } from "./units.js";

const PAGE = 50;
const LOOK_MS = 10_000;

export function letters({ main, query: asked }) {
  document.title = "Dead letters – Whisper Queue";
  const state = select([["false", "open"], ["true", "resolved"], ["", "all"]]);
  const type = select([["", "all"]]);
  const list = el("ul", { class: "letters", "aria-label": "Dead letters" });
  const empty = el("p", { class: "empty", hidden: true }, "No dead letters: nothing has failed for good.");
  const more = button("More", () => loadMore().catch(problem.show), { hidden: true });
  const all = button("Replay all", () => replayAll().catch(problem.show), { class: "primary" });
  const problem = problemLine();
  const shown = new Map();
  let wanted = { resolved: asked.get("resolved") ?? "false", error_type: asked.get("type") ?? "" };
  state.value = wanted.resolved;

  main.append(
    el("h1", {}, "Dead letters"),
    el("p", { class: "note" }, "Jobs that failed for good. A replay asks for exactly what was asked for the first time."),
    problem.element, el("div", { class: "filters" }, field("State", state), field("Type", type), all), list, empty, more,
  );

  async function look() {
    const now = wanted;
    const page = await ask(query("admin/errors", { ...now, limit: Math.min(100, Math.max(PAGE, shown.size)) }));
    if (now !== wanted) return 0;
    const found = new Set(page.data.map((letter) => letter.id));
    if (shown.size <= page.data.length || !page.has_more) {
      for (const id of [...shown.keys()]) if (!found.has(id)) take(id);
      more.hidden = !page.has_more;
    }
    page.data.forEach((letter, index) => put(letter, list.children[index]));
    empty.hidden = shown.size > 0;
    all.disabled = now.resolved !== "false" || shown.size === 0;
    return LOOK_MS;
  }

  function put(letter, before) {
    addType(letter.error_type);
    if (shown.get(letter.id)?.letter.resolved_at === letter.resolved_at) return;
    const made = { letter, element: letterRow(letter, act, problem.show) };
    if (shown.has(letter.id)) shown.get(letter.id).element.replaceWith(made.element);
    else if (before) list.insertBefore(made.element, before);
    else list.append(made.element);
    shown.set(letter.id, made);
  }

  function take(id) {
    const { element } = shown.get(id);
    if (element.contains(document.activeElement)) main.focus();
    element.remove();
    shown.delete(id);
  }

  function addType(name) {
    if ([...type.options].some((option) => option.value === name)) return;
    type.append(el("option", { value: name }, name));
    if (wanted.error_type === name) type.value = name;
  }

  async function loadMore() {
    const page = await ask(query("admin/errors", { ...wanted, limit: PAGE, after: [...shown.keys()].at(-1) }));
    page.data.forEach((letter) => put(letter));
    more.hidden = !page.has_more;
  }

  async function act(name, letter) {
    await ask(`admin/errors/${letter.id}/${name}`, { method: "POST" });
    announce(name === "replay" ? "Replayed: the job waits again" : "Resolved: the job stays failed");
    polling.now();
  }

  async function replayAll() {
    const which = type.value ? `Every open dead letter of the type ${type.value}` : "Every open dead letter";
    const question = { title: "Replay all?", text: `${which} is tried again, the oldest first, up to a thousand.`, action: "Replay" };
    if (!(await confirm(question))) return;
    const { job_ids: jobs } = await ask(query("admin/errors/replay", { error_type: type.value, limit: 1000 }), { method: "POST" });
    announce(`${jobs.length} replayed`);
    polling.now();
  }

  function refilter() {
    wanted = { resolved: state.value, error_type: type.value };
    history.replaceState(null, "", `#${query("/letters", { resolved: state.value === "false" ? "" : state.value || "all", type: type.value })}`);
    document.dispatchEvent(new CustomEvent("address-replaced"));
    for (const id of [...shown.keys()]) take(id);
    polling.now();
  }
  state.addEventListener("change", refilter);
  type.addEventListener("change", refilter);

  if (wanted.resolved === "all") wanted.resolved = state.value = "";
  if (wanted.error_type) addType(wanted.error_type);
  const polling = poll(look, problem.show);
  return { close: polling.stop };
}

function letterRow(letter, act, onProblem) {
  const attempts = `${letter.attempt} ${letter.attempt === 1 ? "attempt" : "attempts"}`;
  const trace = el("div", { class: "trace", hidden: true });
  const doing = (name) => () => act(name, letter).catch(onProblem);
  const details = button("Details", () => open().catch(onProblem), { "aria-expanded": "false", "aria-label": `Details of ${letter.error_type}` });
  const open = async () => {
    if (trace.hidden && !trace.hasChildNodes()) trace.append(...(await described(letter)));
    trace.hidden = !trace.hidden;
    details.setAttribute("aria-expanded", String(!trace.hidden));
  };
  const done = letter.resolved_at && el("span", { class: "badge" }, letter.resolution);
  const actions = letter.resolved_at ? [] : [
    button("Replay", doing("replay"), { "aria-label": `Replay ${letter.error_type}` }),
    button("Resolve", doing("resolve"), { "aria-label": `Resolve ${letter.error_type}` }),
  ];
  return el(
    "li", { class: "letter" }, el("code", { class: "name" }, letter.error_type), done, el("p", { class: "message" }, letter.message),
    el("span", { class: "facts" }, `${attempts} · `, el("time", { datetime: letter.created_at, title: moment(letter.created_at) }, ago(letter.created_at)),
      " · ", el("a", { href: `#/jobs/${letter.job_id}` }, "its recording")),
    el("div", { class: "buttons" }, details, actions), trace,
  );
}

async function described(letter) {
  const { stack_trace: stack, job, worker, retry_count: retries } = await ask(`admin/errors/${letter.id}`);
  const facts = el("p", { class: "facts" });
  setText(facts, [job.filename, `failed before: ${retries}`, worker && `worker ${worker}`].filter(Boolean).join(" · "));
  const text = stack ? el("pre", { tabindex: "0", "aria-label": "Stack trace" }, stack) : el("p", {}, "There is no stack trace.");
  return [facts, text];
}
