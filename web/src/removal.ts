/** Deleting an ended job with its files: asked twice, because nothing brings it back. */

import { asProblem, request } from "./api";
import { button, make } from "./dom";
import { notice } from "./notice";

const ASKED_MS = 5000;

/** A button that deletes the job when it is pressed twice; `onGone` hears of it. */
export function removing(jobId: string, onGone: () => void): HTMLElement {
  const said = make("div");
  let isAsked = false;
  const calm = (): void => {
    isAsked = false;
    remove.textContent = "Delete";
    remove.classList.remove("danger");
  };
  const remove = button("Delete", "quiet", () => {
    if (isAsked) return void request(`/v1/jobs/${jobId}`, { method: "DELETE" }).then(onGone, (thrown: unknown) => said.replaceChildren(notice(asProblem(thrown))));
    isAsked = true;
    remove.textContent = "Delete for good?";
    remove.classList.add("danger");
    setTimeout(calm, ASKED_MS);
  });
  remove.onkeydown = (event) => {
    if (event.key === "Escape") calm();
  };
  return make("div", { className: "removal" }, remove, said);
}
