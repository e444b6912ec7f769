/** How long a job over some photos would take here, asked before it is started. */

import { post } from "./api";
import { isVideo } from "./pick";
import { bytes, span } from "./words";

interface Estimate {
  basis: "history" | "trial";
  p50_s: number;
  p90_s: number;
  peak_memory_bytes: number;
}

/** A sentence for so many photos, these and frames of these; all are taken to have the first one's size. Throws the problem when the machine cannot do it. */
export async function estimate(files: File[], count: number, preset: string): Promise<string> {
  const { width, height } = await sizeOf(files.find((file) => !isVideo(file)) ?? files[0]);
  const found = await post<Estimate>("/v1/estimate", { photos: { count, width, height }, preset });
  const why = found.basis === "history" ? "as jobs like this one took here" : "measured by a short trial on this machine";
  return `About ${span(found)} once it is its turn, and up to ${bytes(found.peak_memory_bytes)} of memory: ${why}.`;
}

async function sizeOf(photo: File | undefined): Promise<{ width: number; height: number }> {
  const usual = { width: 4000, height: 3000 };
  if (!photo) return usual;
  if (isVideo(photo)) return { width: 1920, height: 1080 };
  const picture = await createImageBitmap(photo).catch(() => null); // TIFF and HEIC open in few browsers
  return picture ? { width: picture.width, height: picture.height } : usual;
}
