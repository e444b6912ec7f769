/** A bar for each stage of a job, and a line with what it is at. Drawn once and then changed in place, so that nothing jumps. */

import type { Job, Stage } from "./api";
import { make, progressBar } from "./dom";
import { duration } from "./words";

/** What people call the stages. */
export const STAGE_TITLES: Record<string, string> = {
  ingest: "Read photos",
  poses: "Find cameras",
  train: "Train gaussians",
  compress: "Write files",
};

interface Row {
  item: HTMLLIElement;
  bar: HTMLProgressElement;
  note: HTMLElement;
}

/** The stages of one job. */
export class Stages {
  readonly list = make("ol", { className: "stages" });
  readonly line = make("p", { className: "now" });
  private readonly rows = new Map<string, Row>();

  /** Show how far each stage is. */
  show(job: Job): void {
    for (const stage of job.stages) this.showStage(stage);
    const current = job.stages.find((stage) => stage.state === "running");
    this.line.textContent = job.state === "running" ? grouped(current?.message ?? "") : "";
  }

  private showStage(stage: Stage): void {
    const row = this.rows.get(stage.name) ?? this.add(stage.name);
    row.item.className = stage.state;
    row.bar.value = ["done", "skipped", "failed"].includes(stage.state) ? 1 : stage.progress;
    row.note.textContent = noteOf(stage);
  }

  private add(name: string): Row {
    const title = STAGE_TITLES[name] ?? name;
    const row = { item: make("li"), bar: progressBar(title, 0), note: make("span", { className: "stage-note" }) };
    row.item.append(make("span", { className: "stage-name", textContent: title }), row.bar, row.note);
    this.list.append(row.item);
    this.rows.set(name, row);
    return row;
  }
}

function noteOf(stage: Stage): string {
  if (stage.state === "running") return `${Math.floor(stage.progress * 100)} %`;
  if (stage.state === "done" && stage.seconds !== null) return duration(stage.seconds);
  if (stage.state === "skipped") return "kept";
  return stage.state === "pending" ? "" : stage.state;
}

/** "22234 gaussians" → "22,234 gaussians". */
function grouped(message: string): string {
  return message.replace(/\b\d{5,}\b/g, (digits) => Number(digits).toLocaleString("en"));
}
