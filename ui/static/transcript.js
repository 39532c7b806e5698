// One recording: how far it is, its text as it comes, and what can be done with it.

import { ask, paced } from "./api.js";
import { confirm } from "./dialog.js";
import { announce, button, el, problemLine, setText } from "./dom.js";
import { downloads } from "./downloads.js";
import { deletionOf } from "./jobs.js";
import { player } from "./player.js";
import { poll } from "./poll.js";
import { factsOf, isFinal, stateOf } from "./row.js";
import { search } from "./search.js";
import { segments } from "./segments.js";
import { moment, number } from "./units.js";

const MOVING_MS = 1_500;

export function transcript({ main, parameters: [id] }) {
  document.title = "Recording – Whisper Queue";
  const problem = problemLine();
  const text = segments(id, { seek: (seconds) => sound?.seek(seconds), time: () => sound?.time() ?? 0, changed });
  const find = search(text.texts);
  let head = null;
  let sound = null;
  let files = null;
  let isClosed = false;
  main.append(el("p", { class: "back" }, el("a", { href: "#/" }, "← All recordings")), problem.element);

  async function look() {
    const job = await ask(`transcribe/${id}`);
    if (isClosed) return null; // another view has the page
    if (!head) build(job);
    head.update(job);
    if (job.status === "completed") complete(job.result);
    else await addNew(job);
    return isFinal(job) ? null : paced(MOVING_MS);
  }

  function build(job) {
    document.title = `${job.filename} – Whisper Queue`;
    head = heading(job, (name) => act(name, job).catch(problem.show));
    sound = player(job, text.mark);
    const follow = el("input", { type: "checkbox", checked: true, onchange: () => text.follow(follow.checked) });
    const bar = el("div", { class: "tools" }, sound.element, find.element, el("label", { class: "check" }, follow, " follow"));
    main.append(head.element, bar, text.element);
  }

  async function addNew(job) {
    const { segments: found } = await ask(`transcribe/${id}/segments?after=${text.last()}`);
    if (found.length && !isFinal(job)) announce(found.map((one) => one.text).join(" "));
    text.add(found, { editable: false });
    find.refresh();
  }

  function complete(result) {
    text.clear(); // until now nothing could be edited
    text.add(result.segments, { editable: true });
    head.complete(result);
    files = downloads({ job_id: id }, { text: text.text, isCorrected: text.isCorrected, onProblem: problem.show });
    head.element.append(files.element);
    if (!result.segments.length) text.element.replaceChildren(el("li", { class: "empty" }, "Nothing was said."));
    changed();
  }

  function changed() {
    files.update();
    find.refresh();
  }

  async function act(name, job) {
    if (name === "delete" && !(await confirm(deletionOf(job)))) return;
    await ask(`transcribe/${id}${name === "delete" ? "?purge=true" : ""}`, { method: "DELETE" });
    announce(`${job.filename}: ${name === "delete" ? "deleted" : "cancelled"}`);
    if (name === "delete") location.hash = "#/";
    else polling.now();
  }

  const onProblem = (error) => {
    problem.show(error);
    if (error?.status === 404 || error?.status === 422) polling.stop();
  };
  const polling = poll(look, onProblem);
  const close = () => {
    isClosed = true;
    polling.stop();
    find.close();
    sound?.close();
  };
  return { close, isUnsaved: text.isUnsaved };
}

/** Name, status and facts of the job. */
function heading(job, act) {
  const badge = el("span", { class: "badge" });
  const bar = el("progress", { max: 100, "aria-label": "Progress" });
  const state = el("span", { class: "state" });
  const facts = el("p", { class: "facts" });
  const cancel = button("Cancel", () => act("cancel"));
  const remove = button("Delete", () => act("delete"), { class: "danger" });
  const line = el("p", { class: "status" }, badge, bar, state, cancel, remove);
  const element = el("div", { class: "head" }, el("h1", {}, job.filename), line, facts);
  let before = job.status;

  function update(now) {
    setText(badge, now.status);
    element.dataset.status = badge.dataset.status = now.status;
    bar.hidden = isFinal(now);
    bar.value = now.progress;
    setText(state, stateOf(now, now));
    setText(facts, [factsOf(now), `sent ${moment(now.created_at)}`].join(" · "));
    [cancel.hidden, remove.hidden] = [isFinal(now), !isFinal(now)];
    if (before !== now.status) announce(`${now.filename}: ${now.status}`);
    before = now.status;
  }

  function complete(result) {
    const sure = result.confidence === null ? null : `confidence ${Math.round(result.confidence * 100)} %`;
    const said = [`${number(result.word_count)} words`, sure].filter(Boolean).join(" · ");
    facts.append(` · ${said}`);
  }

  return { element, update, complete };
}
