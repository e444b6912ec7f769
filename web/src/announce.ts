/** What a page says besides what it shows: to screen readers in words, and in its title. */

import { make } from "./dom";

const NAME = "Splatworks";
const region = make("div", { className: "unseen" });
region.setAttribute("role", "status");

/** Have screen readers say something, once they are done with what they are at. */
export function announce(words: string): void {
  if (!region.isConnected) document.body.append(region);
  region.textContent = words;
}

const works = new Map<string, string>();
let ended = "";

/** Put `words` about a piece of work into the title while it goes on; null when it is over. The newest work is shown. */
export function entitle(work: string, words: string | null): void {
  if (words === null) works.delete(work);
  else works.set(work, words);
  write();
}

/** Say in the title how work ended, until the reader comes back to this tab. */
export function entitleEnd(words: string): void {
  if (document.visibilityState === "hidden") ended = words;
  write();
}

document.addEventListener("visibilitychange", () => {
  if (document.visibilityState === "visible") ended = "";
  write();
});

function write(): void {
  const words = ended || [...works.values()].at(-1);
  document.title = words ? `${words} · ${NAME}` : NAME;
}
