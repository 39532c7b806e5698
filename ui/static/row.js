// One job in the list. It is updated in place, so that focus and selection stay where they are.

import { button, el, setText } from "./dom.js";
import { ago, clock, languageName, moment, number, span } from "./units.js";

export const FINAL = ["completed", "failed", "cancelled"];
export const isFinal = (job) => FINAL.includes(job.status);

/** `act(name, job)` with name cancel or delete. */
export function row(job, act) {
  const name = el("a", { class: "name", href: `#/jobs/${job.job_id}` }, job.filename);
  const badge = el("span", { class: "badge" });
  const bar = el("progress", { max: 100, "aria-label": `Progress of ${job.filename}` });
  const state = el("span", { class: "state" });
  const facts = el("span", { class: "facts" });
  const created = el("time", { datetime: job.created_at, title: moment(job.created_at) });
  const cancel = button("Cancel", () => act("cancel", shown), { class: "quiet", "aria-label": `Cancel ${job.filename}` });
  const remove = button("Delete", () => act("delete", shown), { class: "quiet dim", "aria-label": `Delete ${job.filename}` });
  const element = el(
    "li", { class: "job" }, el("div", { class: "what" }, name, facts), el("div", { class: "how" }, badge, state, bar), created,
    el("div", { class: "actions" }, cancel, remove),
  );
  let shown = null;

  /** `detail`: place in the queue and estimate, which the list does not have. */
  function update(now, detail) {
    shown = now;
    element.dataset.status = badge.dataset.status = now.status;
    setText(badge, now.status);
    bar.hidden = now.status !== "processing";
    bar.value = now.progress;
    setText(state, stateOf(now, detail));
    setText(facts, factsOf(now));
    setText(created, ago(now.created_at));
    [cancel.hidden, remove.hidden] = [isFinal(now), !isFinal(now)];
  }

  update(job);
  return { element, update, job: () => shown };
}

export function stateOf(job, detail) {
  const left = detail?.eta_seconds ? `, about ${span(detail.eta_seconds)} left` : "";
  if (job.status === "processing") return `${Math.round(job.progress)} %${left}`;
  if (job.status === "failed") return job.error?.message ?? "";
  if (job.status !== "pending") return "";
  if (job.error && job.next_attempt_at) return `Tried again ${ago(job.next_attempt_at)}: ${job.error.message}`;
  const why = (detail ?? job).waiting_for;
  if (why && ["paused", "scheduled"].includes(why.code)) return why.detail;
  if (!detail?.queue_position) return "in the queue";
  return detail.queue_position === 1 ? `next in the queue${left}` : `number ${number(detail.queue_position)} in the queue${left}`;
}

export function factsOf(job) {
  return [
    job.audio?.duration ? clock(Math.round(job.audio.duration)) : null,
    job.model_used ?? job.model_size,
    job.language ? languageName(job.language) : null,
    job.task === "translate" ? "to English" : null,
    job.priority === "high" ? "high priority" : null,
  ].filter(Boolean).join(" · ");
}
