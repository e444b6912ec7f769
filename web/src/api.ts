/** The HTTP interface under /v1, typed: only what the pages use. */

import { answered } from "./connection";

export type StageState = "pending" | "running" | "done" | "skipped" | "failed";
export type JobState = "queued" | "running" | "cancelling" | "cancelled" | "succeeded" | "failed";

export interface Stage {
  name: string;
  state: StageState;
  progress: number;
  message: string;
  seconds: number | null;
}

export interface Result {
  registered?: number;
  photos?: number;
  psnr_db?: number;
  gaussians?: number;
}

export interface JobError {
  code: string;
  title: string;
  detail: string;
  hint?: string;
}

/** Seconds to the end: half of such jobs take less than the first, nine tenths less than the second. */
export interface Eta {
  p50_s: number;
  p90_s: number;
}

export interface Job {
  id: string;
  capture_id: string;
  state: JobState;
  stage: string;
  stages: Stage[];
  progress: number;
  preset: string;
  n_photos: number;
  queue_position: number | null;
  waits_for: string | null;
  eta?: Eta | null;
  created_at: string;
  result: Result | null;
  error: JobError | null;
}

export interface Photo {
  name: string;
  size_bytes: number;
  state: string;
  reject_reason: string | null;
}

export interface Asset {
  name: string;
  size_bytes: number;
}

/** Something that happened to a job; of type "warning", a remark on its photos. */
export interface JobEvent {
  seq: number;
  type: string;
  data: { detail?: string };
}

export interface Preset {
  name: string;
  options: { ingest: { min_photos: number; frames: number }; train: { steps: number; max_gaussians: number; max_side: number } };
}

const TERMINAL: ReadonlySet<string> = new Set(["succeeded", "failed", "cancelled"]);

/** Whether a job has ended. */
export function isTerminal(job: Job): boolean {
  return TERMINAL.has(job.state);
}

/** An error the server explained (problem+json), or that the network gave. */
export class Problem extends Error {
  constructor(
    readonly title: string,
    readonly detail: string,
    readonly hint = "",
    readonly status = 0,
    readonly code = "",
    readonly errors: { name?: string; detail?: string }[] = [],
  ) {
    super(detail);
  }
}

/** Told to the window when the server asks for a key: the page then shows the form for one. */
export const LOCKED = "splatworks-locked";

/** The problem that a response's status and body tell. */
export function toProblem(status: number, text: string): Problem {
  if (status === 401) window.dispatchEvent(new Event(LOCKED));
  try {
    const body = JSON.parse(text) as Partial<Pick<Problem, "title" | "detail" | "hint" | "code" | "errors">>;
    return new Problem(body.title ?? `HTTP ${status}`, body.detail ?? "", body.hint ?? "", status, body.code ?? "", body.errors ?? []);
  } catch {
    return new Problem(`HTTP ${status}`, "The server gave an answer that this page cannot read.", "", status);
  }
}

export const OFFLINE = new Problem("No connection", "The service did not answer.", "Check the network, and that `splatworks serve` is running.");

/** Whatever was thrown, as a problem. */
export function asProblem(thrown: unknown): Problem {
  return thrown instanceof Problem ? thrown : new Problem("Unexpected error", String(thrown));
}

/** Ask the server; a 4xx, a 5xx or silence throws a Problem. */
export async function request<T>(path: string, init: RequestInit = {}): Promise<T> {
  let response: Response;
  try {
    response = await fetch(path, init);
  } catch {
    answered(false);
    throw OFFLINE;
  }
  answered(true);
  const text = await response.text();
  if (!response.ok) throw toProblem(response.status, text);
  return (text ? JSON.parse(text) : undefined) as T;
}

/** Send a JSON body. */
export function post<T>(path: string, body: unknown, headers: Record<string, string> = {}): Promise<T> {
  return request<T>(path, { method: "POST", body: JSON.stringify(body), headers: { "Content-Type": "application/json", ...headers } });
}
