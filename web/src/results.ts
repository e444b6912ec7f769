/** What a job leaves: figures, files, what it was made without, and remarks. */

import type { Asset, Job, Result } from "./api";
import { make } from "./dom";
import { bytes, counted } from "./words";

/** Splat files in the order in which people ask for them, and what each is for. */
const SPLATS: Record<string, string> = {
  "scene.sog": "for the web, smallest",
  "scene.spz": "for phones and game engines",
  "scene.splat": "for older web viewers",
  "scene.ply": "for editors, full precision",
  "scene.glb": "for 3D programs",
};

/** A line with how good it became. */
export function figures(result: Result): HTMLElement {
  const parts: string[] = [];
  if (result.registered !== undefined && result.photos !== undefined) parts.push(`${result.registered} of ${counted(result.photos, "photo")} placed`);
  if (result.gaussians !== undefined) parts.push(`${result.gaussians.toLocaleString("en")} gaussians`);
  if (typeof result.psnr_db === "number") parts.push(`PSNR ${result.psnr_db.toFixed(1)} dB on photos kept out of training`);
  return make("p", { className: "figures", textContent: parts.join(" · ") });
}

/** Links to the files: the splats with what each is for, the rest in a fold. */
export function downloads(job: Job, assets: Asset[]): HTMLElement {
  const order = Object.keys(SPLATS);
  const splats = assets.filter((asset) => asset.name in SPLATS).sort((a, b) => order.indexOf(a.name) - order.indexOf(b.name));
  const others = assets.filter((asset) => !(asset.name in SPLATS));
  const list = (some: Asset[]): HTMLElement => make("ul", { className: "downloads", ariaLabel: "Downloads" }, ...some.map((asset) => fileRow(job, asset)));
  const rest = make("details", {}, make("summary", { textContent: counted(others.length, "other file") }), list(others));
  return make("div", { className: "files-made" }, list(splats), others.length > 0 ? rest : null);
}

function fileRow(job: Job, { name, size_bytes }: Asset): HTMLElement {
  const link = make("a", { href: `/v1/jobs/${job.id}/assets/${name}`, download: name, textContent: name });
  return make("li", {}, link, make("span", { className: "size", textContent: bytes(size_bytes) }), make("span", { className: "use", textContent: SPLATS[name] ?? "" }));
}

/** A fold with a line each; nothing when there are none. */
export function folded(title: string, lines: string[]): HTMLElement | null {
  if (lines.length === 0) return null;
  const rows = lines.map((line) => make("li", { textContent: line }));
  return make("details", {}, make("summary", { textContent: title }), make("ul", {}, ...rows));
}
