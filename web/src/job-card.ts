/** One job, as the list shows it: state, a bar for each stage, how it looks, what to do next. */

import { type Asset, isTerminal, type Job, type JobEvent, type Photo, type Problem } from "./api";
import { button, make } from "./dom";
import { notice } from "./notice";
import { removing } from "./removal";
import { downloads, figures, folded } from "./results";
import { retrying } from "./retry";
import { sharing } from "./share";
import { Stages, STAGE_TITLES } from "./stages";
import { counted, moment, span } from "./words";

/** What the card shows besides the job itself. */
export interface Extras {
  assets: Asset[];
  rejected: Photo[];
  warnings: JobEvent[];
}

/** What the reader may do with a job. */
export interface Handles {
  onCancel: () => void;
  onStarted: (job: Job) => void;
  onGone: () => void;
}

/** The card: drawn once, then changed in place, so that focus and folds stay as the reader left them. */
export class JobCard {
  readonly element: HTMLElement;
  private readonly state = make("span");
  private readonly actions = make("div", { className: "actions" });
  private readonly stages = new Stages();
  private readonly picture = make("a", { className: "picture", tabIndex: -1 }, "A picture comes while it trains");
  private readonly facts = make("div", { className: "facts" });
  private readonly problem = make("div");
  private readonly said = make("div", { className: "endings" });
  private readonly after = make("div");
  private readonly count = make("span");
  private drawn = "";

  constructor(
    job: Job,
    private readonly handles: Handles,
  ) {
    const title = make("h3", {}, this.count, make("small", { textContent: `${job.preset}, ${moment(job.created_at)}` }));
    this.facts.append(this.stages.list, this.stages.line, this.problem, this.said);
    this.element = make("article", { className: "job", id: `job-${job.id}`, tabIndex: -1 }, make("header", {}, title, this.state, this.actions),
      make("div", { className: "middle" }, this.facts, this.picture), this.after);
    this.show(job);
  }

  /** Show the job as it is now. */
  show(job: Job): void {
    this.state.className = `state ${job.state}`;
    this.state.textContent = stateWords(job);
    this.stages.show(job);
    this.element.dataset["state"] = job.state;
    this.count.textContent = `${counted(job.n_photos, "photo")} `; // of a video it is known once that is read
    const shape = `${job.state} ${job.error?.code ?? ""}`;
    if (shape === this.drawn) return;
    this.drawn = shape;
    this.drawActions(job);
    this.problem.replaceChildren(...problemOf(job));
  }

  /** Show what is known besides, at last what the job left. */
  showExtras(job: Job, { assets, rejected, warnings }: Extras): void {
    const leftOut = rejected.map((photo) => photo.reject_reason ?? photo.name);
    const parts = [
      job.result ? figures(job.result) : null,
      assets.length > 0 ? downloads(job, assets) : null,
      folded(`${counted(leftOut.length, "photo")} left out`, leftOut),
      folded(counted(warnings.length, "remark"), warnings.map((warning) => warning.data.detail ?? "")),
    ];
    this.said.replaceChildren(...parts.filter((part) => part !== null));
    if (!isTerminal(job)) return;
    const again = retrying(job, STAGE_TITLES, this.handles.onStarted);
    const log = make("a", { href: `/v1/jobs/${job.id}/logs`, textContent: "Log" });
    this.after.className = "afterwards";
    this.after.replaceChildren(...(job.state === "succeeded" ? [sharing(job.id)] : [log]), again, removing(job.id, this.handles.onGone));
  }

  /** Show how the scene looks; the picture is changed once the new one is there. */
  showPicture(url: string): void {
    const image = make("img", { alt: "How the scene looks", decoding: "async" });
    image.onload = () => this.picture.replaceChildren(image);
    image.src = url;
  }

  /** Show why the job cannot be read. */
  complain(problem: Problem): void {
    this.drawn = "";
    this.problem.replaceChildren(notice(problem));
  }

  private drawActions(job: Job): void {
    const hadFocus = this.actions.contains(document.activeElement);
    if (job.state === "succeeded") {
      const href = `/jobs/${job.id}/view`;
      this.picture.href = href;
      this.actions.replaceChildren(make("a", { className: "primary", href, textContent: "Open viewer" }));
    } else if (isTerminal(job)) {
      this.actions.replaceChildren();
    } else {
      const cancel = this.actions.querySelector("button") ?? button("Cancel", "quiet", this.handles.onCancel);
      cancel.ariaDisabled = String(job.state === "cancelling"); // not disabled: that would take the focus away
      if (!cancel.isConnected) this.actions.append(cancel);
    }
    // Whoever was at "Cancel" is at the card, when there is nothing to cancel any more.
    if (hadFocus && document.activeElement === document.body) (this.actions.querySelector("a") ?? this.element).focus({ preventScroll: true });
  }
}

function problemOf(job: Job): HTMLElement[] {
  if (!job.error) return [];
  if (job.state === "failed") return [notice(job.error)];
  return [make("p", { className: "hint", textContent: `An attempt broke (${job.error.title}); it is tried again.` })];
}

/** A job's state in words. */
export function stateWords(job: Job): string {
  if (job.state === "queued") return queuedWords(job);
  if (job.state === "running") return `running, ${Math.floor(job.progress * 100)} %${job.eta ? `, ${span(job.eta)} left` : ""}`;
  return job.state === "cancelling" ? "cancelling …" : job.state;
}

function queuedWords(job: Job): string {
  if (job.waits_for) return `queued, waits for free ${job.waits_for} space`;
  if (!job.queue_position) return "queued";
  return `queued, number ${job.queue_position} in line${job.eta ? `, done in ${span(job.eta)}` : ""}`;
}
