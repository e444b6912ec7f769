/** The list of jobs, newest first, each followed while it runs. */

import { type Asset, asProblem, isTerminal, type Job, type Photo, post, request, type Warning } from "./api";
import { button, make } from "./dom";
import { follow } from "./follow";
import { drawJob, type Extras } from "./job-card";
import { notice } from "./notice";

interface Page<T> {
  items: T[];
  next_cursor?: string | null;
}

/** Fill `section` with the jobs there are; returns how to put a new one on top. */
export function jobList(section: HTMLElement): (job: Job) => void {
  const list = make("div", { className: "job-list" });
  const more = make("div", { className: "more" });
  const empty = make("p", { className: "empty", textContent: "No jobs yet. Drop some photos above." });
  section.append(list, more);

  const onStarted = (job: Job): void => {
    show(job, true);
    document.getElementById(`job-${job.id}`)?.scrollIntoView({ behavior: "smooth", block: "nearest" });
  };
  const show = (job: Job, atTop: boolean): void => {
    empty.remove();
    const card = make("article", { className: "job", id: `job-${job.id}` });
    if (atTop) list.prepend(card);
    else list.append(card);
    watch(card, job, onStarted);
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
  void load(null);
  return onStarted;
}

function watch(card: HTMLElement, first: Job, onStarted: (job: Job) => void): void {
  const onCancel = (): void => {
    post(`/v1/jobs/${first.id}/cancel`, {}).catch((thrown: unknown) => card.append(notice(asProblem(thrown))));
  };
  const picture = make("img", { className: "preview", alt: "How the scene looks", hidden: true });
  const handles = { onCancel, onStarted, picture };
  let pictures = 0;
  const onPicture = (): void => {
    picture.src = `/v1/jobs/${first.id}/preview?${++pictures}`;
    picture.hidden = false;
  };
  const draw = (job: Job): void => {
    drawJob(card, job, null, handles);
    if (!isTerminal(job)) return;
    void extrasOf(job).then((extras) => {
      if (extras.assets.some((asset) => asset.name === "preview.webp")) onPicture();
      drawJob(card, job, extras, handles);
    });
  };
  draw(first);
  if (!isTerminal(first)) follow(first.id, { onJob: draw, onPicture, onProblem: (problem) => card.append(notice(problem)) });
}

async function extrasOf(job: Job): Promise<Extras> {
  const listed = job.state === "succeeded" ? request<Page<Asset>>(`/v1/jobs/${job.id}/assets`).then((page) => page.items) : Promise.resolve([]);
  const photos = request<{ photos: Photo[] }>(`/v1/captures/${job.capture_id}`).then((capture) => capture.photos);
  const json = { headers: { Accept: "application/json" } };
  const news = request<Page<Warning>>(`/v1/jobs/${job.id}/events`, json).then((page) => page.items.filter((event) => event.type === "warning"));
  // A part that cannot be read is left out: the job itself is on the screen.
  const [assets, seen, warnings] = await Promise.all([listed.catch(() => []), photos.catch(() => []), news.catch(() => [])]);
  return { assets, rejected: seen.filter((photo) => photo.reject_reason), warnings };
}
