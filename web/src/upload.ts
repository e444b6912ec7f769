/** Photos to the server by tus, several at a time: a lost connection is waited for, and a page that was closed goes on when the same photos are chosen again. */

import * as tus from "tus-js-client";

import { OFFLINE, type Photo, post, Problem, request, toProblem } from "./api";
import { Board } from "./board";
import { sendForms } from "./multipart";
import { markOf } from "./pick";
import { bytes } from "./words";

const AT_A_TIME = 3;
const SMALL_BYTES = 200_000; // sent with the request that begins the upload; a larger photo is to be gone on with when the line breaks
const RETRY_MS = [0, 1000, 2000, 4000, 8000, 15_000, 30_000, 30_000, 60_000, 60_000];
const NOTED = "splatworks-capture ";
const KEPT_MS = 86_400_000; // the service keeps what it has of an upload for so long, unless it is set otherwise

/** What became of an upload: the capture, and why some photos were refused. */
export interface Sent {
  captureId: string;
  refused: string[];
}

/** Send all photos into one capture and show in `status` how far each is. A photo that cannot be sent ends it, as `signal` does with its reason; the rest stays where it is. */
export async function sendAll(photos: File[], status: HTMLElement, signal: AbortSignal): Promise<Sent> {
  const board = new Board(photos, status);
  const { id, has } = await captureFor(photos);
  const missing = photos.filter((photo) => !has(photo) || (board.set(photo, photo.size, "there already"), false));
  if (!(await speaksTus())) return { captureId: id, refused: await sendForms(id, missing, (sent) => board.setAll(sent), signal) };
  const refused: string[] = [];
  const queue = [...missing];
  const work = async (): Promise<void> => {
    for (let photo = queue.shift(); photo; photo = queue.shift()) {
      const reason = await send(id, photo, board, signal).catch((thrown: unknown) => ((queue.length = 0), Promise.reject(thrown)));
      if (reason) board.refuse(reason), refused.push(reason);
    }
  };
  const ends = await Promise.allSettled(Array.from({ length: AT_A_TIME }, work));
  const broken = ends.find((end) => end.status === "rejected");
  if (broken) throw broken.reason;
  return { captureId: id, refused };
}

/** Forget which capture holds these photos: its job has begun. */
export function forget(photos: File[]): void {
  localStorage.removeItem(noteOf(photos));
}

/** Forget all uploads that were cut off. */
export function forgetAll(): void {
  for (const key of notes()) localStorage.removeItem(key);
}

/** How many files an upload had that a closed page or a reload cut off not long ago; 0 when there was none. */
export function unfinished(): number {
  for (const key of notes()) {
    // The first 48 bits of the capture's id (UUIDv7) say when it was made, in milliseconds.
    const made = parseInt((localStorage.getItem(key) ?? "").replaceAll("-", "").slice(0, 12), 16);
    if (Date.now() - made < KEPT_MS) return Number(key.slice(NOTED.length).split(" ")[0]);
    localStorage.removeItem(key);
  }
  return 0;
}

function notes(): string[] {
  return Object.keys(localStorage).filter((key) => key.startsWith(NOTED));
}

/** The capture that an earlier try at the same photos began, if the server still has it, else a new one; and which photos it has. */
async function captureFor(photos: File[]): Promise<{ id: string; has: (photo: File) => boolean }> {
  const known = localStorage.getItem(noteOf(photos));
  if (known) {
    const capture = await request<{ photos: Photo[] }>(`/v1/captures/${known}`).catch(() => null);
    const there = new Set(capture?.photos.map((photo) => `${photo.name} ${photo.size_bytes}`));
    if (capture) return { id: known, has: (photo) => there.has(`${photo.name} ${photo.size}`) };
  }
  const { id } = await post<{ id: string }>("/v1/captures", {});
  localStorage.setItem(noteOf(photos), id);
  return { id, has: () => false };
}

function noteOf(photos: File[]): string {
  // Not for secrecy: a short name for a set of files.
  const text = photos.map(markOf).join("\n");
  let hash = 0;
  for (const letter of text) hash = (Math.imul(hash, 31) + (letter.codePointAt(0) ?? 0)) | 0;
  return `${NOTED}${photos.length} ${hash}`;
}

async function speaksTus(): Promise<boolean> {
  const answer = await fetch("/v1/uploads", { method: "OPTIONS" }).catch(() => Promise.reject(OFFLINE));
  return answer.ok && answer.headers.has("Tus-Version");
}

/** Send one photo; returns why it was refused, or nothing. Rejects with the problem that ended it. */
function send(captureId: string, photo: File, board: Board, signal: AbortSignal): Promise<string | null> {
  if (signal.aborted) return Promise.reject(signal.reason);
  return new Promise((resolve, reject) => {
    let state: string | undefined;
    const upload = new tus.Upload(photo, {
      endpoint: "/v1/uploads",
      metadata: { filename: photo.name, filetype: photo.type || "application/octet-stream", capture_id: captureId },
      fingerprint: () => Promise.resolve(`splatworks ${captureId} ${markOf(photo)}`),
      removeFingerprintOnSuccess: true,
      uploadDataDuringCreation: photo.size < SMALL_BYTES,
      retryDelays: RETRY_MS,
      onShouldRetry: (error) => {
        const status = error.originalResponse?.getStatus() ?? 0;
        const again = status === 0 || status >= 500 || [409, 423, 429].includes(status);
        if (again) board.wait(photo);
        return again;
      },
      onProgress: (sent) => board.set(photo, sent, bytes(sent)),
      onAfterResponse: (_request, response) => void (state = response.getHeader("Upload-State") ?? state),
      onError: (error) => {
        board.set(photo, null, "not sent");
        reject(problemOf(error));
      },
      onSuccess: () => {
        if (state !== "refused") return board.set(photo, photo.size, "sent"), resolve(null);
        board.set(photo, photo.size, "refused");
        void reasonOf(upload.url, photo).then(resolve);
      },
    });
    signal.addEventListener("abort", () => void upload.abort().then(() => reject(signal.reason)), { once: true });
    void upload.findPreviousUploads().then((earlier) => {
      if (earlier[0]) upload.resumeFromPreviousUpload(earlier[0]);
      upload.start();
    });
  });
}

async function reasonOf(url: string | null, photo: File): Promise<string> {
  const upload = url ? await request<{ error: { detail: string } | null }>(url).catch(() => null) : null;
  return upload?.error?.detail ?? `${photo.name} was refused`;
}

function problemOf(error: Error | tus.DetailedError): Problem {
  const answer = "originalResponse" in error ? error.originalResponse : null;
  return answer ? toProblem(answer.getStatus(), answer.getBody()) : OFFLINE;
}
