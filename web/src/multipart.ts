/** Photos in portions as multipart forms: the way to servers that do not speak tus. */

import { asProblem, OFFLINE, type Photo, toProblem } from "./api";

const BATCH_PHOTOS = 8;
const BATCH_BYTES = 48e6;
const TRIES = 3;

/** Send photos and return why some were refused; `onBytes` hears how many bytes have left in all. */
export async function sendForms(captureId: string, photos: File[], onBytes: (sent: number) => void, signal: AbortSignal): Promise<string[]> {
  const refused: string[] = [];
  let before = 0;
  for (const batch of batches(photos)) {
    signal.throwIfAborted();
    const size = batch.reduce((sum, photo) => sum + photo.size, 0);
    refused.push(...(await sendPatiently(captureId, batch, (sent) => onBytes(before + Math.min(sent, size)))));
    before += size;
    onBytes(before);
  }
  return refused;
}

/** Photos in portions that one request carries well. */
function batches(photos: File[]): File[][] {
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

/** Send a batch and return why some were refused; a broken line is tried again (a photo that arrives twice is stored once). */
async function sendPatiently(captureId: string, batch: File[], onBytes: (sent: number) => void): Promise<string[]> {
  for (let attempt = 1; ; attempt++) {
    try {
      const photos = await sendForm(captureId, batch, onBytes);
      return photos.flatMap((photo) => photo.reject_reason ?? []);
    } catch (thrown) {
      const { status, code, errors } = asProblem(thrown);
      if (code === "input.no_usable_photos") return errors.map((error) => error.detail ?? error.name ?? "");
      if (attempt === TRIES || (status >= 400 && status < 500)) throw thrown;
      await new Promise((resolve) => setTimeout(resolve, 1000 * attempt));
    }
  }
}

function sendForm(captureId: string, photos: File[], onBytes: (sent: number) => void): Promise<Photo[]> {
  return new Promise((resolve, reject) => {
    const form = new FormData();
    for (const photo of photos) form.append("files", photo, photo.name);
    const call = new XMLHttpRequest(); // fetch does not tell upload progress
    call.open("POST", `/v1/captures/${captureId}/photos`);
    call.upload.onprogress = (event) => onBytes(event.loaded);
    call.onload = () => (call.status < 400 ? resolve((JSON.parse(call.responseText) as { photos: Photo[] }).photos) : reject(toProblem(call.status, call.responseText)));
    call.onerror = () => reject(OFFLINE);
    call.send(form);
  });
}
