// One recording: how far it is, its text as it comes, and what can be done with it.

import { ask, paced } from "./api.js";
import { about } from "./about.js";
import { confirm } from "./dialog.js";
import { announce, button, el, problemLine, setText } from "./dom.js";
import { downloads } from "./downloads.js";
import { deletionOf } from "./jobs.js";
import { menu } from "./menu.js";
import { player } from "./player.js";
import { poll } from "./poll.js";
import { factsOf, isFinal, stateOf } from "./row.js";
import { search } from "./search.js";
import { segments } from "./segments.js";
import { number } from "./units.js";
import { warnings } from "./warnings.js";

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
  const place = el("div", { class: "reading" }, el("p", { class: "back" }, el("a", { href: "#/" }, "← All recordings")), problem.element);
  main.append(place);

  async function look() {
    const job = await ask(`transcribe/${id}`);
    if (isClosed) return null; // another view has the page
    if (!head) build(job);
    head.update(job);
    if (job.status === "completed") complete(job);
    else await addNew(job);
    return isFinal(job) ? null : paced(MOVING_MS);
  }

  function build(job) {
    document.title = `${job.filename} – Whisper Queue`;
    head = heading(job, (name) => act(name, job).catch(problem.show), (seconds) => sound.seek(seconds));
    sound = player(job, text.mark);
    const follow = el("input", { type: "checkbox", checked: true, onchange: () => text.follow(follow.checked) });
    const bar = el("div", { class: "tools" }, sound.element, find.element, el("label", { class: "check" }, follow, "Follow"));
    place.append(head.element, bar, text.element);
  }

  async function addNew(job) {
    const { segments: found } = await ask(`transcribe/${id}/segments?after=${text.last()}`);
    if (found.length && !isFinal(job)) announce(found.map((one) => one.text).join(" "));
    text.add(found, { editable: false, language: job.language });
    find.refresh();
  }

  function complete({ result, language }) {
    text.clear(); // until now nothing could be edited
    text.add(result.segments, { editable: true, language });
    files = downloads({ job_id: id }, { text: text.text, isCorrected: text.isCorrected, onProblem: problem.show });
    head.element.append(files.element);
    if (!result.segments.length) text.element.replaceChildren(el("li", { class: "empty" }, "No speech was found."));
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

/** Name, status and facts of the job, with what its text may lack. */
function heading(job, act, seek) {
  const badge = el("span", { class: "badge" });
  const bar = el("progress", { max: 100, "aria-label": "Progress" });
  const state = el("span", { class: "state" });
  const facts = el("span", { class: "facts" });
  const cancel = button("Cancel", () => act("cancel"));
  const actions = menu("More actions", [button("Delete…", () => act("delete"), { class: "danger" })]);
  const told = warnings(seek);
  const details = about();
  const element = el(
    "div", { class: "head" }, el("div", { class: "title" }, el("h1", {}, job.filename), actions),
    el("p", { class: "status" }, badge, bar, state, facts, cancel), details.element, told.element,
  );
  let before = job.status;

  function update(now) {
    setText(badge, now.status);
    element.dataset.status = badge.dataset.status = now.status;
    bar.hidden = isFinal(now);
    bar.value = now.progress;
    setText(state, stateOf(now, now));
    setText(facts, [factsOf(now), ...saidOf(now.result)].filter(Boolean).join(" · "));
    [cancel.hidden, actions.hidden] = [isFinal(now), !isFinal(now)];
    details.update(now);
    told.update(now.result?.warnings);
    if (before !== now.status) announce(`${now.filename}: ${now.status}`);
    before = now.status;
  }

  return { element, update };
}

function saidOf(result) {
  if (!result) return [];
  const sure = result.confidence === null ? null : `confidence ${Math.round(result.confidence * 100)} %`;
  return [`${number(result.word_count)} words`, sure];
}
