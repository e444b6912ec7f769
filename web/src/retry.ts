/** An ended job once more: what it finished is taken over, up to a stage of choice. */

import { asProblem, type Job, post } from "./api";
import { button, make } from "./dom";
import { notice } from "./notice";

/** A button and the stage to begin with; `onStarted` gets the new job. */
export function retrying(job: Job, titles: Record<string, string>, onStarted: (job: Job) => void): HTMLElement {
  const from = make("select", { ariaLabel: "Begin with" }, make("option", { value: "", textContent: "from where it stopped" }));
  if (job.state === "succeeded") from.replaceChildren();
  from.append(...job.stages.map((stage) => make("option", { value: stage.name, textContent: `from “${titles[stage.name] ?? stage.name}”` })));
  const said = make("div", { className: "said" });
  const again = button(job.state === "succeeded" ? "Run again" : "Retry", "quiet", () => {
    again.disabled = true;
    post<Job>(`/v1/jobs/${job.id}/retry`, from.value ? { from_stage: from.value } : {})
      .then((started) => (said.replaceChildren(), onStarted(started)))
      .catch((thrown: unknown) => said.replaceChildren(notice(asProblem(thrown))))
      .finally(() => (again.disabled = false));
  });
  return make("div", { className: "again" }, again, from, said);
}
