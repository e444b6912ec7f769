/** The pages /jobs/{id}/view and /s/{token}: one scene, full window. */

import { defaultSettings, type ExperienceSettings } from "@playcanvas/supersplat-viewer/settings";
import { createViewer } from "@playcanvas/supersplat-viewer/viewer";
import "@playcanvas/supersplat-viewer/viewer.css";

import { asProblem, type Job, Problem, request, toProblem } from "./api";
import { firstView, type PhotoCamera } from "./camera";
import { byId, make } from "./dom";
import { keyForm } from "./door";
import { notice } from "./notice";
import { counted } from "./words";
import "./style.css";

const WAIT_FOR_PICTURE_MS = 60_000;
const ROOM_FOR_HELP_PX = 1200;

/** Where the scene's files are; `job` is null behind a shared link, which opens nothing but them. */
interface Scene {
  assets: string;
  job: string | null;
}

function sceneOfPage(): Scene {
  const shared = /^\/s\/([^/]+)\/?$/.exec(location.pathname);
  if (shared?.[1]) return { assets: `/s/${shared[1]}/assets`, job: null };
  const match = /^\/jobs\/([^/]+)\/view/.exec(location.pathname);
  if (!match?.[1]) throw new Problem("No job", `${location.pathname} names no job.`, "Open a scene from the list of jobs.");
  return { assets: `/v1/jobs/${match[1]}/assets`, job: match[1] };
}

async function finishedJob(id: string): Promise<Job> {
  const job = await request<Job>(`/v1/jobs/${id}`);
  if (job.state === "succeeded") return job;
  if (job.error) throw new Problem(job.error.title, job.error.detail, job.error.hint);
  throw new Problem("Not ready yet", `This job is ${job.state}.`, "Come back when it has succeeded; the list of jobs shows its progress.");
}

async function settingsOf(assets: string): Promise<ExperienceSettings> {
  const settings = defaultSettings("object");
  try {
    const cameras = await request<PhotoCamera[]>(`${assets}/cameras.json`);
    const initial = firstView(cameras, window.innerWidth / window.innerHeight);
    if (initial) settings.cameras = [{ initial }];
  } catch (thrown) {
    // Without cameras the viewer frames the scene by itself: a worse first view, but a view.
    console.info(`first view is the viewer's own: ${asProblem(thrown).title}`);
  }
  return settings;
}

async function open({ assets, job }: Scene): Promise<void> {
  if (job !== null) document.title = `Scene of ${counted((await finishedJob(job)).n_photos, "photo")} · Splatworks`;
  const contents = await fetch(`${assets}/scene.sog`);
  if (!contents.ok) throw toProblem(contents.status, await contents.text());
  const settings = await settingsOf(assets);
  const viewer = await createViewer({
    container: byId("viewer"),
    settings,
    contentUrl: `${assets}/scene.sog`,
    contents: Promise.resolve(contents),
    renderer: "webgl",
    noanim: true,
  });
  keepEvents(byId("viewer"));
  await new Promise<void>((resolve, reject) => {
    const late = () => reject(new Problem("No picture", "The scene did not appear.", "The file may be damaged, or WebGL 2 may be off in this browser."));
    const timer = setTimeout(late, WAIT_FOR_PICTURE_MS);
    const done = () => (clearTimeout(timer), resolve());
    if (viewer.state.loaded) done();
    else viewer.events.on("loaded:changed", done);
  });
  viewer.state.cameraMode = "orbit"; // the photo's own view, under the visitor's hand; the tour waits behind its play button
}

/** What inline handlers did in the viewer's markup before the build took them out (vite.config.js): panels keep their events. */
function keepEvents(root: HTMLElement): void {
  for (const type of ["wheel", "pointerdown"]) {
    for (const panel of root.querySelectorAll(`[data-keeps-${type}]`)) panel.addEventListener(type, (event) => event.stopPropagation());
  }
}

/** In a small window the viewer's help panel would cover the scene: it starts closed there, behind its button. */
function keepHelpOutOfTheWay(): void {
  const key = "controlsPanelOpen"; // the viewer's own
  try {
    if (window.innerWidth < ROOM_FOR_HELP_PX && localStorage.getItem(key) === null) localStorage.setItem(key, "false");
  } catch {
    // Storage is off in this browser: the panel is open, as the viewer wants it.
  }
}

async function run(): Promise<void> {
  const message = byId("message");
  keepHelpOutOfTheWay();
  try {
    const scene = sceneOfPage();
    if (scene.job === null) byId("bar").replaceChildren(); // the list of jobs is not for guests
    await open(scene);
    byId("bar").append(make("a", { href: `${scene.assets}/scene.sog`, download: "scene.sog", textContent: "Download .sog" }));
    message.remove();
    document.body.dataset["state"] = "loaded";
  } catch (thrown) {
    const problem = asProblem(thrown);
    byId("viewer").replaceChildren();
    message.replaceChildren(problem.status === 401 ? keyForm("", () => location.reload()) : notice(problem));
    message.querySelector("input")?.focus();
    document.body.dataset["state"] = "failed";
  }
}

void run();
