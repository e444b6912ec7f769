/** The form that makes a scene: photos, preset, start. */

import { asProblem, type Job, type Preset, Problem, post, request } from "./api";
import { button, make } from "./dom";
import { estimate } from "./estimate";
import { notice } from "./notice";
import { filesOfDrop, type Picked, pick } from "./pick";
import { forget, sendAll } from "./upload";
import { bytes, counted } from "./words";

/** Fill `section` with the form; `onStarted` gets the new job. */
export function newScene(section: HTMLElement, onStarted: (job: Job) => void): void {
  let picked: Picked = { photos: [], ignored: 0 };
  const chosen = make("p", { className: "chosen", textContent: "No photos chosen yet." });
  chosen.setAttribute("aria-live", "polite");
  const presets = make("fieldset", { className: "presets" }, make("legend", { textContent: "Quality" }));
  const start = button("Start", "primary", () => void run());
  const ask = button("How long will it take?", "quiet", () => void tell());
  start.disabled = ask.disabled = true;
  const status = make("div", { className: "status" });
  status.setAttribute("aria-live", "polite");

  const take = (files: Iterable<File>): void => {
    picked = pick(files);
    start.disabled = ask.disabled = picked.photos.length === 0;
    chosen.textContent = describe(picked);
  };
  const tell = async (): Promise<void> => {
    ask.disabled = true;
    status.replaceChildren(make("span", { textContent: "Trying …" }));
    try {
      status.replaceChildren(make("span", { textContent: await estimate(picked.photos, chosenPreset(presets)) }));
    } catch (thrown) {
      status.replaceChildren(notice(asProblem(thrown)));
    }
    ask.disabled = false;
  };
  const run = async (): Promise<void> => {
    start.disabled = ask.disabled = true;
    try {
      onStarted(await upload(picked.photos, chosenPreset(presets), status));
      take([]);
      status.replaceChildren();
    } catch (thrown) {
      status.replaceChildren(notice(asProblem(thrown)));
      start.disabled = ask.disabled = false;
    }
  };
  section.append(dropZone(take), chosen, presets, make("div", { className: "actions" }, start, ask), status);
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

async function upload(photos: File[], preset: string, status: HTMLElement): Promise<Job> {
  const { captureId, refused } = await sendAll(photos, status);
  status.replaceChildren(make("span", { textContent: "Starting …" }));
  const job = await startJob(captureId, preset, refused);
  forget(photos);
  return job;
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
