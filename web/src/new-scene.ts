/** The form that makes a scene: photos and videos, preset, start. */

import { announce, entitle } from "./announce";
import { asProblem, type Job, Problem, post } from "./api";
import { button, make } from "./dom";
import { dropZone } from "./drop-zone";
import { estimate } from "./estimate";
import { notice } from "./notice";
import { type Found, isVideo, NOTHING, type Picked, pick } from "./pick";
import { Presets } from "./presets";
import { forget, forgetAll, sendAll, unfinished } from "./upload";
import { bytes, counted } from "./words";

const STOPPED = new Problem("Stopped", "Stopped. What was sent is kept for a day: Start goes on from there.");

/** Fill `section` with the form; `onStarted` gets the new job. */
export function newScene(section: HTMLElement, onStarted: (job: Job) => void): void {
  new Form(section, onStarted).begin();
}

class Form {
  private picked: Picked = NOTHING;
  private sending: AbortController | null = null;
  private asked = 0;
  private readonly presets = new Presets();
  private readonly words = make("span");
  private readonly clear = button("Clear", "quiet", () => this.take(null));
  private readonly zone = dropZone((found) => this.take(found));
  private readonly start = button("Start", "primary", () => void this.run());
  private readonly stop = button("Stop", "quiet", () => this.sending?.abort(STOPPED));
  private readonly ask = button("How long will it take?", "quiet", () => void this.tell());
  private readonly status = make("div", { className: "status" });

  constructor(
    private readonly section: HTMLElement,
    private readonly onStarted: (job: Job) => void,
  ) {}

  begin(): void {
    const chosen = make("p", { className: "chosen" }, this.words, this.clear);
    this.words.setAttribute("aria-live", "polite");
    this.section.append(this.zone, chosen, this.presets.element, make("div", { className: "actions" }, this.start, this.stop, this.ask), this.status);
    this.draw();
    this.presets.fill(() => this.forgetAnswer()).then(() => this.draw(), (thrown: unknown) => this.say(notice(asProblem(thrown))));
    this.remind(unfinished());
    // A closed page loses the list of photos, not what was sent of them.
    window.addEventListener("beforeunload", (event) => this.sending && event.preventDefault());
  }

  private remind(left: number): void {
    if (left === 0) return;
    const words = `An upload of ${counted(left, "file")} was cut off. Choose the same files again and press Start: it goes on where it was. `;
    this.say(make("p", {}, words, button("Forget it", "quiet", () => (forgetAll(), this.say()))));
  }

  /** Add what was found to what is chosen; null begins anew. */
  private take(found: Found[] | null): void {
    if (this.sending) return;
    this.picked = found ? pick(this.picked, found) : NOTHING;
    if (found === null) this.zone.querySelector("input")?.focus();
    this.forgetAnswer();
    this.draw();
  }

  private draw(): void {
    const isBusy = this.sending !== null;
    const n = this.picked.photos.length;
    const lacking = Math.max(0, this.presets.minPhotos - this.presets.countPhotos(this.picked.photos));
    this.words.textContent = describe(this.picked, lacking ? this.presets.minPhotos : 0);
    this.clear.hidden = isBusy || n + this.picked.companions.length + this.picked.ignored === 0;
    this.zone.inert = this.presets.element.disabled = isBusy;
    this.start.disabled = isBusy || lacking > 0;
    this.start.hidden = isBusy;
    this.stop.hidden = !isBusy;
    this.ask.disabled = this.start.disabled;
  }

  private say(...words: (Node | string)[]): void {
    this.status.replaceChildren(...words.map((each) => (typeof each === "string" ? make("p", { textContent: each }) : each)));
  }

  /** What was answered was about other photos or another preset. */
  private forgetAnswer(): void {
    this.asked++;
    this.say();
  }

  private async tell(): Promise<void> {
    this.forgetAnswer();
    const question = this.asked;
    this.ask.disabled = true;
    this.say("Trying it out on this machine; that may take some ten seconds …");
    const said = await estimate(this.picked.photos, this.presets.countPhotos(this.picked.photos), this.presets.chosen).catch((thrown: unknown) => notice(asProblem(thrown)));
    if (question !== this.asked) return this.draw();
    this.say(said);
    if (typeof said === "string") announce(said);
    this.draw();
  }

  private async run(): Promise<void> {
    this.sending = new AbortController();
    this.asked++;
    this.draw();
    this.stop.focus();
    const files = [...this.picked.photos, ...this.picked.companions];
    try {
      const { captureId, refused } = await sendAll(files, this.status, this.sending.signal);
      const job = await startJob(captureId, this.presets.chosen, refused);
      forget(files);
      this.picked = NOTHING;
      this.say();
      this.onStarted(job);
    } catch (thrown) {
      const problem = asProblem(thrown);
      if (problem.status === 422) forget(files); // not these photos again
      this.say(problem === STOPPED ? STOPPED.detail : notice(problem));
    }
    this.sending = null;
    entitle("upload", null);
    this.draw();
    if (document.activeElement === document.body) this.start.focus();
  }
}

/** What is chosen; `least` is how many photos there must be where there are fewer, else 0. */
function describe({ photos, companions, ignored }: Picked, least: number): string {
  if (photos.length === 0) return ignored ? "None of these files is a JPEG, PNG, WebP, TIFF, AVIF or HEIC photo, or an MP4, MOV, WebM, MKV or AVI video." : "No photos chosen yet.";
  const size = photos.reduce((sum, photo) => sum + photo.size, 0);
  const masks = companions.filter((file) => file.name.startsWith("masks/")).length;
  const videos = photos.filter(isVideo).length;
  const kinds = [counted(photos.length - videos, "photo"), counted(videos, "video")].filter((each) => !each.startsWith("0 "));
  const parts = [`${kinds.join(" and ")}, ${bytes(size)}`];
  if (masks) parts.push(`with ${counted(masks, "mask")}`);
  if (companions.length > masks) parts.push("with camera poses");
  if (ignored) parts.push(`${counted(ignored, "other file")} left alone`);
  return `${parts.join("; ")}.${least ? ` At least ${least} are needed; 20 or more are better.` : ""}`;
}

/** Start the job; if it cannot start because of refused photos, say which and why. */
async function startJob(captureId: string, preset: string, refused: string[]): Promise<Job> {
  try {
    return await post<Job>("/v1/jobs", { capture_id: captureId, preset }, { "Idempotency-Key": `${captureId}-${preset}` });
  } catch (thrown) {
    const problem = asProblem(thrown);
    if (refused.length === 0) throw problem;
    throw new Problem(problem.title, `${problem.detail}. Left out: ${refused.join("; ")}.`, problem.hint, problem.status);
  }
}
