/** The form that makes a scene: photos, preset, start. */

import { asProblem, type Job, type Preset, Problem, post, request, sendPhotos } from "./api";
import { button, make, progressBar } from "./dom";
import { notice } from "./notice";
import { filesOfDrop, type Picked, pick } from "./pick";
import { bytes, counted } from "./words";

const BATCH_PHOTOS = 8;
const BATCH_BYTES = 48e6;
const TRIES = 3;

/** Fill `section` with the form; `onStarted` gets the new job. */
export function newScene(section: HTMLElement, onStarted: (job: Job) => void): void {
  let picked: Picked = { photos: [], ignored: 0 };
  const chosen = make("p", { className: "chosen", textContent: "No photos chosen yet." });
  chosen.setAttribute("aria-live", "polite");
  const presets = make("fieldset", { className: "presets" }, make("legend", { textContent: "Quality" }));
  const start = button("Start", "primary", () => void run());
  start.disabled = true;
  const status = make("div", { className: "status" });
  status.setAttribute("aria-live", "polite");

  const take = (files: Iterable<File>): void => {
    picked = pick(files);
    start.disabled = picked.photos.length === 0;
    chosen.textContent = describe(picked);
  };
  const run = async (): Promise<void> => {
    start.disabled = true;
    try {
      onStarted(await upload(picked.photos, chosenPreset(presets), status));
      take([]);
      status.replaceChildren();
    } catch (thrown) {
      status.replaceChildren(notice(asProblem(thrown)));
      start.disabled = false;
    }
  };
  section.append(dropZone(take), chosen, presets, start, status);
  void fillPresets(presets, status);
}

function describe({ photos, ignored }: Picked): string {
  if (photos.length === 0) return ignored ? "None of these files is a JPEG, PNG, WebP or TIFF photo." : "No photos chosen yet.";
  const size = photos.reduce((sum, photo) => sum + photo.size, 0);
  const rest = ignored ? `; ${counted(ignored, "other file")} left alone` : "";
  return `${counted(photos.length, "photo")}, ${bytes(size)}${rest}.`;
}

function dropZone(take: (files: Iterable<File>) => void): HTMLElement {
  const files = make("input", { type: "file", id: "photos", multiple: true, accept: "image/*", className: "hidden-input" });
  const folder = make("input", { type: "file", id: "folder", webkitdirectory: true, className: "hidden-input" });
  for (const input of [files, folder]) {
    input.onchange = () => {
      take(input.files ?? []);
      input.value = ""; // so that choosing the same files again is heard
    };
  }
  const zone = make(
    "div",
    { className: "drop" },
    make("p", {}, make("strong", { textContent: "Drop photos or a folder here" })),
    make("p", { textContent: "20 to 200 overlapping photos of one thing or place, taken while walking around it." }),
    make("p", {}, files, make("label", { htmlFor: "photos", className: "button", textContent: "Choose photos" }), " ",
      folder, make("label", { htmlFor: "folder", className: "button", textContent: "Choose a folder" })),
  );
  zone.ondragover = (event) => (event.preventDefault(), zone.classList.add("over"));
  zone.ondragleave = () => zone.classList.remove("over");
  zone.ondrop = (event) => {
    event.preventDefault();
    zone.classList.remove("over");
    if (event.dataTransfer) void filesOfDrop(event.dataTransfer).then(take);
  };
  return zone;
}

async function fillPresets(fieldset: HTMLElement, status: HTMLElement): Promise<void> {
  try {
    const { items } = await request<{ items: Preset[] }>("/v1/presets");
    items.forEach((preset, index) => {
      const radio = make("input", { type: "radio", name: "preset", value: preset.name, checked: index === 0 });
      fieldset.append(make("label", {}, radio, make("span", {}, make("strong", { textContent: preset.name }), make("small", { textContent: describePreset(preset) }))));
    });
  } catch (thrown) {
    status.replaceChildren(notice(asProblem(thrown)));
  }
}

function describePreset({ options: { train } }: Preset): string {
  const short = new Intl.NumberFormat("en", { notation: "compact" });
  return `${short.format(train.steps)} steps, up to ${short.format(train.max_gaussians)} gaussians, photos at ${train.max_side} px`;
}

function chosenPreset(fieldset: HTMLElement): string {
  return fieldset.querySelector<HTMLInputElement>("input:checked")?.value ?? "draft";
}

/** Photos in portions that one request carries well. */
export function batches(photos: File[]): File[][] {
  const all: File[][] = [];
  let size = Infinity;
  for (const photo of photos) {
    const last = all.at(-1);
    if (!last || last.length >= BATCH_PHOTOS || size + photo.size > BATCH_BYTES) {
      all.push([photo]);
      size = photo.size;
    } else {
      last.push(photo);
      size += photo.size;
    }
  }
  return all;
}

async function upload(photos: File[], preset: string, status: HTMLElement): Promise<Job> {
  const total = photos.reduce((sum, photo) => sum + photo.size, 0);
  const bar = progressBar("Upload", 0);
  const words = make("span", { textContent: "Uploading …" });
  status.replaceChildren(bar, words);
  const capture = await post<{ id: string }>("/v1/captures", {});
  const refused: string[] = [];
  let before = 0;
  for (const batch of batches(photos)) {
    const size = batch.reduce((sum, photo) => sum + photo.size, 0);
    const refusals = await sendPatiently(capture.id, batch, (sent) => {
      bar.value = (before + Math.min(sent, size)) / total;
      words.textContent = `${bytes(before + Math.min(sent, size))} of ${bytes(total)}`;
    });
    before += size;
    refused.push(...refusals);
  }
  words.textContent = "Starting …";
  return startJob(capture.id, preset, refused);
}

/** Start the job; if it cannot start because of refused photos, say which and why. */
async function startJob(captureId: string, preset: string, refused: string[]): Promise<Job> {
  try {
    return await post<Job>("/v1/jobs", { capture_id: captureId, preset }, { "Idempotency-Key": captureId });
  } catch (thrown) {
    const problem = asProblem(thrown);
    if (refused.length === 0) throw problem;
    throw new Problem(problem.title, `${problem.detail}. Left out: ${refused.join("; ")}.`, problem.hint, problem.status);
  }
}

/** Send a batch and return why some were refused; a broken line is tried again (a photo that arrives twice is stored once). */
async function sendPatiently(captureId: string, batch: File[], onBytes: (sent: number) => void): Promise<string[]> {
  for (let attempt = 1; ; attempt++) {
    try {
      const photos = await sendPhotos(captureId, batch, onBytes);
      return photos.flatMap((photo) => photo.reject_reason ?? []);
    } catch (thrown) {
      const { status, code, errors } = asProblem(thrown);
      if (code === "input.no_usable_photos") return errors.map((error) => error.detail ?? error.name ?? "");
      if (attempt === TRIES || (status >= 400 && status < 500)) throw thrown;
      await new Promise((resolve) => setTimeout(resolve, 1000 * attempt));
    }
  }
}
