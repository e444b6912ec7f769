/** Errors as people read them: what happened, and what to do. */

import type { JobError, Problem } from "./api";
import { make } from "./dom";

/** A box with title, detail and hint. */
export function notice(problem: Problem | JobError): HTMLElement {
  const box = make(
    "div",
    { className: "notice" },
    make("strong", { textContent: problem.title }),
    make("p", {}, ...marked(sentence(problem.detail))),
    problem.hint ? make("p", { className: "hint" }, ...marked(problem.hint)) : null,
  );
  box.setAttribute("role", "alert");
  return box;
}

/** "the capture has …" → "The capture has …."; what begins with a file's name keeps its letters. */
function sentence(text: string): string {
  const begun = /^[a-z]+ /.test(text) ? text.charAt(0).toUpperCase() + text.slice(1) : text;
  return /[.!?…]$/.test(begun) || begun === "" ? begun : `${begun}.`;
}

/** Text in which `this` is to be typed. */
function marked(text: string): (Node | string)[] {
  return text.split("`").map((part, index) => (index % 2 ? make("code", { textContent: part }) : part));
}
