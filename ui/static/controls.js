// Play, seek and speed for a sound, in the colours of the page, by mouse, touch and keyboard.

import { button, el, select, setText } from "./dom.js";
import { icon } from "./icons.js";
import { clock } from "./units.js";

const SPEEDS = ["0.5", "0.75", "1", "1.25", "1.5", "1.75", "2"];
const STEPS = { ArrowLeft: -5, ArrowDown: -5, ArrowRight: 5, ArrowUp: 5, PageDown: -30, PageUp: 30 }; // seconds

/** For an audio element without controls of its own; `duration` where the file does not say it, in seconds. */
export function controls(audio, { label, duration = 0 }) {
  const toggle = button(icon("play"), () => (audio.paused ? audio.play().catch(() => {}) : audio.pause()), {
    class: "primary round", "aria-label": "Play", title: "Play",
  });
  const seek = el("input", { type: "range", class: "seek", min: 0, max: 1, step: "any", value: 0, "aria-label": "Position" });
  const now = el("span", { class: "time" }, "0:00");
  const all = el("span", { class: "time all" });
  const speed = select(SPEEDS.map((one) => [one, `${one}×`]), { class: "speed", "aria-label": "Speed", title: "Speed" });
  speed.value = "1";

  const length = () => (Number.isFinite(audio.duration) ? audio.duration : duration) || 0;

  function show() {
    const [at, end] = [audio.currentTime, length()];
    seek.max = Math.max(end, 0.01);
    seek.value = at;
    seek.disabled = !end;
    seek.setAttribute("aria-valuetext", `${clock(at)} of ${clock(Math.round(end))}`);
    seek.style.setProperty("--played", percent(at, end));
    seek.style.setProperty("--loaded", percent(loadedUntil(audio), end));
    setText(now, clock(at));
    setText(all, end ? clock(Math.round(end)) : "");
  }

  function showState() {
    const name = audio.paused ? "Play" : "Pause";
    if (toggle.title === name) return;
    toggle.replaceChildren(icon(audio.paused ? "play" : "pause"));
    toggle.title = name;
    toggle.setAttribute("aria-label", name);
  }

  const goTo = (seconds) => {
    audio.currentTime = Math.min(length(), Math.max(0, seconds));
    show();
  };
  seek.addEventListener("input", () => goTo(Number(seek.value)));
  seek.addEventListener("keydown", (event) => {
    if (!(event.key in STEPS)) return;
    event.preventDefault();
    goTo(audio.currentTime + STEPS[event.key]);
  });
  speed.addEventListener("change", () => {
    audio.playbackRate = audio.defaultPlaybackRate = Number(speed.value);
  });
  for (const name of ["timeupdate", "seeking", "durationchange", "progress"]) audio.addEventListener(name, show);
  for (const name of ["play", "pause", "ended"]) audio.addEventListener(name, showState);
  show();
  return el("div", { class: "controls", role: "group", "aria-label": label }, audio, toggle, now, seek, all, speed);
}

const percent = (part, whole) => `${whole ? Math.min(100, (part / whole) * 100).toFixed(2) : 0}%`;

/** The end of the stretch that is here already, from where it plays. */
function loadedUntil({ buffered, currentTime }) {
  for (let index = 0; index < buffered.length; index += 1) {
    if (buffered.start(index) <= currentTime + 0.1 && currentTime <= buffered.end(index)) return buffered.end(index);
  }
  return 0;
}
