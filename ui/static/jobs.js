// The list of recordings, live: one small request every two seconds while something moves, and seldom otherwise.

import { ask, paced, query } from "./api.js";
import { confirm } from "./dialog.js";
import { announce, button, el, problemLine, select } from "./dom.js";
import { intake } from "./intake.js";
import { poll } from "./poll.js";
import { isFinal, row } from "./row.js";
import { onAccepted } from "./upload.js";

const PAGE = 25;
const MOST = 100; // that the service gives at once
const DETAILS = 3; // jobs whose place in the queue is asked for in one look
const MOVING_MS = 2_000;
const QUIET_MS = 10_000;
const TYPING_MS = 300;
const STATUSES = ["pending", "processing", "completed", "failed", "cancelled"].map((status) => [status, status]);

export function jobs({ main, query: asked }) {
  document.title = "Recordings – Whisper Queue";
  const entry = intake();
  const status = select([["", "Any status"], ...STATUSES], { "aria-label": "Status" });
  const search = el("input", { type: "search", placeholder: "Find by name", "aria-label": "Name" });
  const list = el("ul", { class: "jobs", "aria-label": "Recordings" });
  const empty = el("p", { class: "empty", hidden: true });
  const more = button("More", () => loadMore().catch(problem.show), { hidden: true });
  const problem = problemLine();
  const rows = new Map();
  const details = new Map();
  let filter = { status: asked.get("status") ?? "", q: asked.get("q") ?? "" };
  let turn = 0;
  [status.value, search.value] = [filter.status, filter.q];

  main.append(
    el("h1", {}, "Recordings"), entry.element, problem.element,
    el("div", { class: "filters", role: "search" }, search, status), list, empty, more,
  );

  async function look() {
    const wanted = filter;
    const limit = Math.min(MOST, Math.max(PAGE, rows.size));
    const page = await ask(query("jobs/", { ...wanted, limit }));
    if (wanted !== filter) return 0;
    merge(page);
    const open = [...rows.values()].filter((one) => !isFinal(one.job()));
    await lookCloser(open);
    return paced(open.length ? MOVING_MS : QUIET_MS);
  }

  /** The first page, without a change to what stays: whoever reads or tabs through the list is not disturbed. */
  function merge({ data, has_more: hasMore }) {
    const found = new Set(data.map((job) => job.job_id));
    const reach = hasMore ? data.at(-1).created_at : "";
    for (const [id, one] of rows) if (!found.has(id) && one.job().created_at >= reach) take(id);
    data.forEach((job, index) => put(job, list.children[index]));
    if (rows.size <= data.length) more.hidden = !hasMore;
    showEmpty();
  }

  function put(job, before) {
    const known = rows.get(job.job_id);
    if (known) {
      tellEnd(known.job(), job);
      known.update(job, details.get(job.job_id));
      return;
    }
    const made = row(job, (name, one) => act(name, one).catch(problem.show));
    rows.set(job.job_id, made);
    if (before === undefined) list.append(made.element);
    else list.insertBefore(made.element, before);
  }

  function take(id) {
    const { element } = rows.get(id);
    if (element.contains(document.activeElement)) main.focus();
    element.remove();
    rows.delete(id);
    details.delete(id);
    showEmpty();
  }

  function showEmpty() {
    const text = filter.status || filter.q ? "No recording matches." : "No recordings yet. Drop one above.";
    empty.hidden = rows.size > 0;
    empty.textContent = text;
  }

  /** A few open jobs each time, in turn. */
  async function lookCloser(open) {
    const some = open.length <= DETAILS ? open : Array.from({ length: DETAILS }, () => open[turn++ % open.length]);
    await Promise.all(some.map(async (one) => {
      const id = one.job().job_id;
      const job = await ask(`transcribe/${id}`).catch((error) => (error.status === 404 ? null : Promise.reject(error)));
      if (job === null || !rows.has(id)) return;
      details.set(id, job);
      tellEnd(one.job(), job);
      one.update(job, job);
    }));
  }

  async function loadMore() {
    const last = [...rows.values()].at(-1) && list.lastElementChild.querySelector("a").hash.split("/").at(-1);
    const page = await ask(query("jobs/", { ...filter, limit: PAGE, after: last }));
    page.data.forEach((job) => put(job));
    more.hidden = !page.has_more;
    if (more.hidden) list.lastElementChild.querySelector("a").focus();
  }

  async function act(name, job) {
    if (name === "delete" && !(await confirm(deletionOf(job)))) return;
    await ask(`transcribe/${job.job_id}${name === "delete" ? "?purge=true" : ""}`, { method: "DELETE" });
    announce(`${job.filename}: ${name === "delete" ? "deleted" : "cancelled"}`);
    if (name === "delete" && rows.has(job.job_id)) take(job.job_id);
    polling.now();
  }

  let typing = 0;
  function refilter() {
    filter = { status: status.value, q: search.value.trim() };
    history.replaceState(null, "", `#${query("/", filter)}`);
    document.dispatchEvent(new CustomEvent("address-replaced"));
    for (const id of [...rows.keys()]) take(id);
    empty.hidden = true;
    polling.now();
  }
  status.addEventListener("change", refilter);
  search.addEventListener("input", () => {
    clearTimeout(typing);
    typing = setTimeout(refilter, TYPING_MS);
  });

  const polling = poll(look, problem.show);
  const forget = onAccepted(polling.now);
  const close = () => {
    clearTimeout(typing);
    polling.stop();
    forget();
    entry.close();
  };
  return { close, isUnsaved: entry.isUnsaved };
}

function tellEnd(before, now) {
  if (!isFinal(before) && isFinal(now)) announce(`${now.filename}: ${now.status}`);
}

export function deletionOf(job) {
  return {
    title: "Delete this recording?",
    text: `${job.filename}, its transcript and all corrections are deleted for ever.`,
    action: "Delete for ever",
    danger: true,
  };
}
