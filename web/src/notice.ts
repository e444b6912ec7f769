/** Errors as people read them: what happened, and what to do. */

import type { JobError, Problem } from "./api";
import { make } from "./dom";

/** A box with title, detail and hint. */
export function notice(problem: Problem | JobError): HTMLElement {
  const box = make(
    "div",
    { className: "notice" },
    make("strong", { textContent: problem.title }),
    make("p", { textContent: problem.detail }),
    problem.hint ? make("p", { className: "hint", textContent: problem.hint }) : null,
  );
  box.setAttribute("role", "alert");
  return box;
}
