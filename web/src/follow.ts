/**
 * Live news of one job: the event stream rings, the job itself is then read; without a stream, it is read every few seconds.
 *
 * A browser opens at most six connections to a server, over all its tabs. So one running job gets a stream, and none while
 * nobody sees the page: else some queued jobs would leave no connection for anything else.
 */

import { asProblem, isTerminal, type Job, type JobEvent, type Problem, request } from "./api";

const RING_AT_MOST_EVERY_MS = 400;
const POLL_MS = 3000;
const STREAMS = 1;
const EVENT_NAMES = ["snapshot", "state", "stage", "progress", "warning", "checkpoint"];
let streams = 0;

/** Who listens: to each new state of the job, to news of how it looks, and to why it cannot be read. */
export interface Listener {
  onJob: (job: Job) => void;
  onPicture: () => void;
  onProblem: (problem: Problem) => void;
}

/** Tell `listener` of the job until it ends, or cannot be read any more. */
export function follow(first: Job, listener: Listener): void {
  new Follower(first, listener).begin();
}

class Follower {
  private source: EventSource | null = null;
  private timer = 0;
  private asked = false;
  private lastEvent = 0;
  private ended = false;

  constructor(
    private job: Job,
    private readonly listener: Listener,
  ) {}

  begin(): void {
    document.addEventListener("visibilitychange", this.seen);
    this.timer = window.setInterval(this.ring, POLL_MS);
    this.listen();
  }

  private readonly seen = (): void => {
    if (document.visibilityState === "hidden") this.hangUp();
    else this.ring();
  };

  private readonly ring = (): void => {
    if (this.asked || this.ended) return;
    this.asked = true;
    window.setTimeout(() => void this.read(), RING_AT_MOST_EVERY_MS);
  };

  private async read(): Promise<void> {
    try {
      this.job = await request<Job>(`/v1/jobs/${this.job.id}`);
      if (isTerminal(this.job)) this.stop();
      else this.listen();
      this.listener.onJob(this.job);
      if (this.job.state === "running" && !this.source) await this.lookForPicture();
    } catch (thrown) {
      const problem = asProblem(thrown);
      if (problem.status >= 400 && problem.status < 500 && problem.status !== 429) this.stop();
      this.listener.onProblem(problem);
    }
    this.asked = false;
  }

  private async lookForPicture(): Promise<void> {
    const path = `/v1/jobs/${this.job.id}/events?after=${this.lastEvent}`;
    const { items } = await request<{ items: JobEvent[] }>(path, { headers: { Accept: "application/json" } });
    this.lastEvent = items.at(-1)?.seq ?? this.lastEvent;
    if (items.some((event) => event.type === "preview")) this.listener.onPicture();
  }

  /** Open a stream if this job is at work, the page is seen, and no other job has one. A stream that the server refused is closed for good. */
  private listen(): void {
    if (this.source?.readyState === EventSource.CLOSED) this.hangUp();
    if (this.source || this.job.state === "queued" || document.visibilityState === "hidden" || streams >= STREAMS) return;
    streams++;
    this.source = new EventSource(`/v1/jobs/${this.job.id}/events`);
    for (const name of EVENT_NAMES) this.source.addEventListener(name, this.ring);
    this.source.addEventListener("preview", this.listener.onPicture);
  }

  private hangUp(): void {
    if (!this.source) return;
    this.source.close();
    this.source = null;
    streams--;
  }

  private stop(): void {
    this.ended = true;
    window.clearInterval(this.timer);
    document.removeEventListener("visibilitychange", this.seen);
    this.hangUp();
  }
}
