// Figures as people read them, in the units that the commands use.

const UNITS = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];

/** Bytes with a unit of 1,024s: `3.2 GiB`. */
export function bytes(count: number): string {
  let unit = 0;
  while (count >= 1023.95 && unit < UNITS.length - 1) {
    count /= 1024;
    unit += 1;
  }
  return `${unit === 0 || count >= 100 ? Math.round(count) : count.toFixed(1)} ${UNITS[unit]}`;
}

export const number = (count: number): string => count.toLocaleString("en");

/** `1 object`, `2 objects`. */
export const counted = (count: number, what: string): string => `${number(count)} ${what}${count === 1 ? "" : "s"}`;

/** A time span in its largest unit. */
export function span(seconds: number): string {
  const of = (count: number, unit: string) => counted(Math.round(count), unit);
  if (seconds < 90) return of(seconds, "second");
  if (seconds < 5400) return of(seconds / 60, "minute");
  if (seconds < 129600) return of(seconds / 3600, "hour");
  return of(seconds / 86400, "day");
}

/** A moment by this browser's clock and customs. */
export const moment = (at: number | string): string =>
  new Date(at).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" });

/** The beginning of an id, enough to tell one from another. */
export const short = (id: string): string => id.slice(0, 12);
