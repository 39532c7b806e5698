// What else is known of a recording: behind "Details", for whoever wants to know. What the service does not say is left out.

import { el } from "./dom.js";
import { clock, languageName, moment, number, span } from "./units.js";

/** `{element, update(job)}`; it stays open or closed as the reader has it. */
export function about() {
  const list = el("dl");
  const element = el("details", { class: "about" }, el("summary", {}, "Details"), list);
  const update = (job) => list.replaceChildren(
    ...rowsOf(job).filter(([, value]) => value && value.length !== 0).flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]),
  );
  return { element, update };
}

function rowsOf(job) {
  const { audio, result } = job;
  return [
    ["Sent", moment(job.created_at)],
    ["Finished", job.completed_at && `${moment(job.completed_at)}${tookOf(job)}`],
    ["Model", modelOf(job)],
    ["Language", languageOf(job)],
    ["Sound", audio && soundOf(audio)],
    ["Speech", audio?.speech_seconds != null && `${clock(audio.speech_seconds)}${audio.duration ? ` of ${clock(audio.duration)}` : ""}`],
    ["Sound tracks", tracksOf(audio)],
    ["Words", result && number(result.word_count)],
    ["Attempts", job.attempt > 1 && `${job.attempt}`],
    ["Job", el("code", {}, job.job_id)],
  ];
}

function tookOf({ started_at: from, completed_at: to }) {
  return from ? `, in ${span((Date.parse(to) - Date.parse(from)) / 1000)}` : "";
}

function modelOf({ model_size: asked, model_used: used, result }) {
  const name = used && used !== asked ? `${used}, where ${asked} was asked for` : asked;
  return result?.model_revision ? [`${name}, revision `, el("code", {}, result.model_revision)] : name;
}

function languageOf({ language, result }) {
  const spoken = new Set((result?.segments ?? []).map((segment) => segment.language).filter(Boolean));
  if (spoken.size > 1) return [...spoken].map(languageName).join(", ");
  if (!language) return null;
  const sure = result?.language_probability;
  return `${languageName(language)}${sure ? `, ${Math.round(sure * 100)} % sure` : ""}`;
}

function soundOf({ codec, container, channels, sample_rate: rate }) {
  const kind = codec && container && codec !== container ? `${codec} in ${container}` : codec ?? container;
  return [kind, channels && `${channels} ${channels === 1 ? "channel" : "channels"}`, rate && `${rate / 1000} kHz`].filter(Boolean).join(", ");
}

/** Only where there is a choice; numbers as `audio_track` takes them. */
function tracksOf(audio) {
  const tracks = audio?.tracks ?? [];
  if (tracks.length < 2) return null;
  return el("ul", {}, tracks.map((track, place) => {
    const index = track.index ?? place;
    const facts = [
      track.language && languageName(track.language), track.title, track.channels && `${track.channels} ch`,
      track.default && "default", (audio.track ?? null) === index && "transcribed",
    ];
    return el("li", {}, `${index}: ${facts.filter(Boolean).join(", ") || "nothing known"}`);
  }));
}
