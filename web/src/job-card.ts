/** One job, as the list shows it: state, a bar for each stage, what to do next. */

import { type Asset, isTerminal, type Job, type JobError, type Photo, type Result, type Stage, type Warning } from "./api";
import { button, make, progressBar } from "./dom";
import { notice } from "./notice";
import { retrying } from "./retry";
import { sharing } from "./share";
import { bytes, counted, duration, moment, span } from "./words";

const STAGE_TITLES: Record<string, string> = {
  ingest: "Read photos",
  poses: "Find cameras",
  train: "Train gaussians",
  compress: "Write files",
};

/** What the card shows besides the job itself, fetched when the job has ended. */
export interface Extras {
  assets: Asset[];
  rejected: Photo[];
  warnings: Warning[];
}

/** What the reader may do with a job; `picture` shows how it looks so far, and outlives the drawing. */
export interface Handles {
  onCancel: () => void;
  onStarted: (job: Job) => void;
  picture: HTMLImageElement;
}

/** Draw the job into `card`. */
export function drawJob(card: HTMLElement, job: Job, extras: Extras | null, handles: Handles): void {
  card.dataset["state"] = job.state;
  card.replaceChildren(
    heading(job, handles.onCancel),
    make("div", { className: "middle" }, make("ol", { className: "stages" }, ...job.stages.map(stageRow)), handles.picture),
    ...(job.error ? [problemOf(job, job.error)] : []),
    ...(job.result ? [figures(job.result)] : []),
    ...(extras ? [...endings(job, extras), afterwards(job, handles)] : []),
  );
}

function problemOf(job: Job, error: JobError): HTMLElement {
  if (job.state === "failed") return notice(error);
  return make("p", { className: "hint", textContent: `An attempt broke (${error.title}); it is tried again.` });
}

function figures(result: Result): HTMLElement {
  const parts: string[] = [];
  if (result.registered !== undefined && result.photos !== undefined) parts.push(`${result.registered} of ${counted(result.photos, "photo")} placed`);
  if (result.gaussians !== undefined) parts.push(`${result.gaussians.toLocaleString("en")} gaussians`);
  if (typeof result.psnr_db === "number") parts.push(`${result.psnr_db.toFixed(1)} dB on photos kept out of training`);
  return make("p", { className: "figures", textContent: parts.join(" · ") });
}

function heading(job: Job, onCancel: () => void): HTMLElement {
  const state = make("span", { className: `state ${job.state}`, textContent: stateWords(job) });
  const about = `${counted(job.n_photos, "photo")}, ${moment(job.created_at)}`;
  const title = make("h3", {}, `${job.preset} `, make("small", { textContent: about }));
  const actions = make("div", { className: "actions" });
  if (job.state === "succeeded") actions.append(make("a", { className: "primary", href: `/jobs/${job.id}/view`, textContent: "Open viewer" }));
  if (!isTerminal(job) && job.state !== "cancelling") actions.append(button("Cancel", "quiet", onCancel));
  return make("header", {}, title, state, actions);
}

function stateWords(job: Job): string {
  if (job.state === "queued" && job.queue_position) return `queued, place ${job.queue_position}${job.eta ? `, done in ${span(job.eta)}` : ""}`;
  if (job.state === "running") return `running, ${Math.floor(job.progress * 100)} %${job.eta ? `, ${span(job.eta)} left` : ""}`;
  return job.state;
}

function stageRow(stage: Stage): HTMLElement {
  const title = STAGE_TITLES[stage.name] ?? stage.name;
  const fraction = stage.state === "done" || stage.state === "skipped" ? 1 : stage.progress;
  return make(
    "li",
    { className: stage.state },
    make("span", { className: "stage-name", textContent: title }),
    progressBar(title, fraction),
    make("span", { className: "stage-note", textContent: stageNote(stage) }),
  );
}

function stageNote(stage: Stage): string {
  if (stage.state === "running") return stage.message || `${Math.floor(stage.progress * 100)} %`;
  if (stage.state === "done" && stage.seconds !== null) return duration(stage.seconds);
  return stage.state === "pending" ? "" : stage.state;
}

function endings(job: Job, extras: Extras): HTMLElement[] {
  const parts: HTMLElement[] = [];
  if (extras.assets.length > 0) parts.push(downloads(job, extras.assets));
  const leftOut = extras.rejected.map((photo) => `${photo.name}: ${photo.reject_reason}`);
  if (leftOut.length > 0) parts.push(folded(`${counted(leftOut.length, "photo")} left out`, leftOut));
  const warnings = extras.warnings.map((warning) => warning.data.detail ?? "");
  if (warnings.length > 0) parts.push(folded(counted(warnings.length, "remark"), warnings));
  return parts;
}

function afterwards(job: Job, { onStarted }: Handles): HTMLElement {
  const again = retrying(job, STAGE_TITLES, onStarted);
  return make("div", { className: "afterwards" }, job.state === "succeeded" ? sharing(job.id) : null, again);
}

function downloads(job: Job, assets: Asset[]): HTMLElement {
  const links = assets.map((asset) =>
    make("li", {}, make("a", { href: `/v1/jobs/${job.id}/assets/${asset.name}`, download: asset.name, textContent: asset.name }), ` ${bytes(asset.size_bytes)}`),
  );
  return make("ul", { className: "downloads", ariaLabel: "Downloads" }, ...links);
}

function folded(title: string, lines: string[]): HTMLElement {
  const rows = lines.map((line) => make("li", { textContent: line }));
  return make("details", {}, make("summary", { textContent: title }), make("ul", {}, ...rows));
}
