/** The list of jobs, newest first, each followed while it runs. */

import { announce, entitle, entitleEnd } from "./announce";
import { type Asset, asProblem, isTerminal, type Job, type JobEvent, type Photo, post, request } from "./api";
import { button, make } from "./dom";
import { UNLOCKED } from "./door";
import { follow } from "./follow";
import { type Extras, JobCard, stateWords } from "./job-card";
import { notice } from "./notice";
import { STAGE_TITLES } from "./stages";

const LOOK_FOR_OTHERS_MS = 20_000;

interface Page<T> {
  items: T[];
  next_cursor?: string | null;
}

/** Fill `section` with the jobs there are; returns how to put a new one on top. */
export function jobList(section: HTMLElement): (job: Job) => void {
  const list = make("div", { className: "job-list" });
  const more = make("div", { className: "more" });
  const empty = make("p", { className: "empty", textContent: "No jobs yet. Drop some photos above." });
  const shown = new Set<string>();
  section.append(list, more);

  const onStarted = (job: Job): void => {
    show(job, true);
    document.getElementById(`job-${job.id}`)?.scrollIntoView({ block: "nearest" });
  };
  const show = (job: Job, atTop: boolean): void => {
    if (shown.has(job.id)) return;
    shown.add(job.id);
    empty.remove();
    const card = watch(job, onStarted, () => {
      if (list.childElementCount === 0) list.append(empty);
    });
    if (atTop) list.prepend(card);
    else list.append(card);
  };
  const load = async (cursor: string | null): Promise<void> => {
    try {
      const page = await request<Page<Job>>(`/v1/jobs?limit=20${cursor ? `&cursor=${encodeURIComponent(cursor)}` : ""}`);
      for (const job of page.items) show(job, false);
      more.replaceChildren(...(page.next_cursor ? [button("Show older", "quiet", () => void load(page.next_cursor ?? null))] : []));
      if (!list.hasChildNodes()) list.append(empty);
    } catch (thrown) {
      more.replaceChildren(notice(asProblem(thrown)), button("Try again", "quiet", () => void load(cursor)));
    }
  };
  const lookForOthers = async (): Promise<void> => {
    if (document.visibilityState === "hidden" || more.querySelector(".notice")) return;
    const page = await request<Page<Job>>("/v1/jobs?limit=5").catch(() => null);
    for (const job of page?.items.reverse() ?? []) show(job, true);
  };
  // Jobs that could not be read while the session was over are followed anew.
  window.addEventListener(UNLOCKED, () => {
    shown.clear();
    list.replaceChildren();
    void load(null);
  });
  void load(null);
  setInterval(() => void lookForOthers(), LOOK_FOR_OTHERS_MS);
  return onStarted;
}

/** A card for the job, kept up to date. */
function watch(first: Job, onStarted: (job: Job) => void, onRemoved: () => void): HTMLElement {
  const onCancel = (): void => void post(`/v1/jobs/${first.id}/cancel`, {}).catch((thrown: unknown) => card.complain(asProblem(thrown)));
  const onGone = (): void => (card.element.remove(), onRemoved());
  const card = new JobCard(first, { onCancel, onStarted, onGone });
  const news = new News(first);
  let pictures = 0;
  const onPicture = (): void => card.showPicture(`/v1/jobs/${first.id}/preview?${++pictures}`);
  const addExtras = async (job: Job): Promise<void> => {
    const { extras, hasPicture } = await extrasOf(job);
    if (hasPicture) onPicture();
    else if (isTerminal(job)) card.element.classList.add("unpictured");
    card.showExtras(job, extras);
  };
  const onJob = (job: Job): void => {
    card.show(job);
    news.tell(job);
    if (isTerminal(job)) void addExtras(job);
  };
  void addExtras(first);
  if (!isTerminal(first)) {
    news.tell(first);
    follow(first, { onJob, onPicture, onProblem: (problem) => void (problem.status && card.complain(problem)) });
  }
  return card.element;
}

/** What is said of a job at work: its state in the page's title, stage by stage to screen readers. */
class News {
  private last: string;

  constructor(job: Job) {
    this.last = `${job.state} ${job.stage}`;
  }

  tell(job: Job): void {
    const title = job.state === "running" ? `${Math.floor(job.progress * 100)} %` : stateWords(job);
    entitle(job.id, isTerminal(job) || job.state === "queued" ? null : title);
    const now = `${job.state} ${job.stage}`;
    if (now === this.last) return;
    this.last = now;
    announce(job.state === "running" ? (STAGE_TITLES[job.stage] ?? job.stage) : `Job ${job.state}. ${job.error?.title ?? ""}`);
    if (isTerminal(job)) entitleEnd(`Job ${job.state}`);
  }
}

async function extrasOf(job: Job): Promise<{ extras: Extras; hasPicture: boolean }> {
  const listed = job.state === "succeeded" ? request<Page<Asset>>(`/v1/jobs/${job.id}/assets`).then((page) => page.items) : Promise.resolve([]);
  const photos = request<{ photos: Photo[] }>(`/v1/captures/${job.capture_id}`).then((capture) => capture.photos);
  const news = request<Page<JobEvent>>(`/v1/jobs/${job.id}/events`, { headers: { Accept: "application/json" } }).then((page) => page.items);
  // A part that cannot be read is left out: the job itself is on the screen.
  const [assets, seen, events] = await Promise.all([listed.catch(() => []), photos.catch(() => []), news.catch(() => [])]);
  const extras = { assets, rejected: seen.filter((photo) => photo.reject_reason), warnings: events.filter((event) => event.type === "warning") };
  const hasPicture = assets.some((asset) => asset.name === "preview.webp") || (!isTerminal(job) && events.some((event) => event.type === "preview"));
  return { extras, hasPicture };
}
