// Numbers and moments as people read them, in the reader's zone and language.

const RELATIVE = new Intl.RelativeTimeFormat(undefined, { numeric: "auto", style: "short" });
const ABSOLUTE = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });
const CLOCK = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit" });
const STEPS = [["second", 60], ["minute", 60], ["hour", 24], ["day", 30], ["month", 12], ["year", Infinity]];
const BYTES = ["B", "KB", "MB", "GB", "TB"];
const NUMBER = new Intl.NumberFormat();

/** 3723.4 -> "1:02:03" */
export function clock(seconds) {
  const whole = Math.max(0, Math.floor(seconds));
  const pad = (number) => String(number).padStart(2, "0");
  const [hours, minutes, rest] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  return hours ? `${hours}:${pad(minutes)}:${pad(rest)}` : `${minutes}:${pad(rest)}`;
}

/** 3723.4 -> "1 h 2 min" */
export function span(seconds) {
  if (seconds < 1) return "under 1 s";
  if (seconds < 100) return `${Math.round(seconds)} s`;
  const minutes = Math.round(seconds / 60);
  if (minutes < 60) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  return hours < 48 ? `${hours} h ${minutes % 60} min` : `${Math.round(hours / 24)} days`;
}

/** 1536 -> "1.5 KB", of 1024 bytes */
export function bytes(size) {
  let step = 0;
  let left = size;
  while (left >= 1024 && step < BYTES.length - 1) {
    left /= 1024;
    step += 1;
  }
  return `${step && left < 100 ? left.toFixed(1) : Math.round(left)} ${BYTES[step]}`;
}

export const number = (value) => NUMBER.format(value);

/** "5 min. ago", "in 2 min." */
export function ago(iso) {
  let left = (Date.parse(iso) - Date.now()) / 1000;
  for (const [unit, size] of STEPS) {
    if (Math.abs(left) < size) return RELATIVE.format(Math.round(left), unit);
    left /= size;
  }
  return iso;
}

export const moment = (iso) => ABSOLUTE.format(new Date(iso));

export const timeOfDay = (ms) => CLOCK.format(new Date(ms));

/** "de" -> "German", in the reader's language. */
export function languageName(code) {
  if (code === "multi") return "several languages";
  try {
    return new Intl.DisplayNames(undefined, { type: "language" }).of(code);
  } catch {
    return code;
  }
}
