/** Figures as people read them. */

/** 1536 → "1.5 kB". */
export function bytes(count: number): string {
  const units = ["B", "kB", "MB", "GB", "TB"];
  const power = Math.min(units.length - 1, count > 0 ? Math.floor(Math.log10(count) / 3) : 0);
  const value = count / 1000 ** power;
  return `${value.toFixed(power === 0 || value >= 100 ? 0 : 1)} ${units[power]}`;
}

/** 95 → "1 min 35 s". */
export function duration(seconds: number): string {
  if (seconds < 0.5) return "under 1 s";
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
}

/** {240, 420} → "4 to 7 min": half of such jobs take less than the first, nine tenths less than the second. */
export function span({ p50_s, p90_s }: { p50_s: number; p90_s: number }): string {
  const [low, high] = [rounded(p50_s), rounded(p90_s)];
  const [number, unit] = low.split(" ");
  if (low === high) return low;
  return high.endsWith(` ${unit}`) ? `${number} to ${high}` : `${low} to ${high}`;
}

function rounded(seconds: number): string {
  if (seconds < 60) return duration(Math.max(5, 5 * Math.round(seconds / 5)));
  return seconds < 3600 ? `${Math.round(seconds / 60)} min` : `${(seconds / 3600).toFixed(1)} h`;
}

/** "1 photo", "2 photos". */
export function counted(count: number, noun: string): string {
  return `${count} ${noun}${count === 1 ? "" : "s"}`;
}

/** A date as the reader's locale writes it. */
export function moment(stamp: string): string {
  return new Date(stamp).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" });
}
