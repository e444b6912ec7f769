/** Live news of one job: the event stream rings, the job itself is then read; without a stream, it is read every few seconds. */

import { asProblem, isTerminal, type Job, type Problem, request } from "./api";

const RING_AT_MOST_EVERY_MS = 400;
const POLL_MS = 3000;
const EVENT_NAMES = ["snapshot", "state", "stage", "progress", "warning", "checkpoint"];

/** Who listens: to each new state of the job, to news of how it looks, and to why it cannot be read. */
export interface Listener {
  onJob: (job: Job) => void;
  onPicture: () => void;
  onProblem: (problem: Problem) => void;
}

/** Tell `listener` of the job until it ends. */
export function follow(id: string, { onJob, onPicture, onProblem }: Listener): void {
  let pending = false;
  let ended = false;
  const source = new EventSource(`/v1/jobs/${id}/events`);

  const read = async (): Promise<void> => {
    pending = false;
    if (ended) return;
    try {
      const job = await request<Job>(`/v1/jobs/${id}`);
      if (isTerminal(job)) stop();
      onJob(job);
    } catch (thrown) {
      const problem = asProblem(thrown);
      if (problem.status >= 400 && problem.status < 500) stop();
      onProblem(problem);
    }
  };
  const ring = (): void => {
    if (pending || ended) return;
    pending = true;
    setTimeout(() => void read(), RING_AT_MOST_EVERY_MS);
  };
  const timer = setInterval(ring, POLL_MS);
  const stop = (): void => {
    ended = true;
    clearInterval(timer);
    source.close();
  };
  for (const name of EVENT_NAMES) source.addEventListener(name, ring);
  source.addEventListener("preview", onPicture);
  ring();
}
