/** How far an upload is: one bar for all, a line in words, what was refused, and a row for each file in a fold. */

import { announce, entitle } from "./announce";
import { make, progressBar } from "./dom";
import { isVideo } from "./pick";
import { bytes, counted } from "./words";

const WAITING = "waiting for the connection";

/** Shows what becomes of each file. */
export class Board {
  private readonly sent = new Map<File, number>();
  private readonly notes = new Map<File, HTMLElement>();
  private readonly waiting = new Set<File>();
  private readonly bar = progressBar("Upload", 0);
  private readonly words = make("p", { textContent: "Uploading …" });
  private readonly refusals = make("ul", { className: "refused" });
  private readonly total: number;

  constructor(files: File[], status: HTMLElement) {
    this.total = Math.max(1, files.reduce((sum, file) => sum + file.size, 0));
    const rows = files.map((file) => {
      const note = make("span", { textContent: "waits" });
      this.notes.set(file, note);
      return make("li", {}, make("span", { textContent: file.name, className: isVideo(file) ? "video" : "" }), note);
    });
    const fold = make("details", { className: "files" }, make("summary", { textContent: counted(files.length, "file") }), make("ol", {}, ...rows));
    status.replaceChildren(this.bar, this.words, this.refusals, fold);
    announce(`Uploading ${counted(files.length, "file")}`);
  }

  /** Note how many bytes of a file have left (null: as before), and its state in words. */
  set(file: File, sent: number | null, words: string): void {
    if (sent !== null) this.sent.set(file, sent);
    this.waiting.delete(file);
    this.note(file, words);
    this.draw();
  }

  /** Note that a file's connection broke. */
  wait(file: File): void {
    if (this.waiting.size === 0) announce(WAITING);
    this.waiting.add(file);
    this.note(file, WAITING);
    this.draw();
  }

  /** Name a file that the service did not take, at once. */
  refuse(reason: string): void {
    this.refusals.append(make("li", { textContent: `Left out: ${reason}` }));
    announce(`Left out: ${reason}`);
  }

  /** Note how many bytes have left in all. */
  setAll(sent: number): void {
    const share = Math.min(1, sent / this.total);
    this.bar.value = share;
    const how = share === 1 ? "All sent; starting …" : `${bytes(Math.min(sent, this.total))} of ${bytes(this.total)}`;
    this.words.textContent = this.waiting.size > 0 ? `${how}, ${WAITING} …` : how;
    entitle("upload", `Uploading ${Math.floor(100 * share)} %`);
  }

  private draw(): void {
    this.setAll([...this.sent.values()].reduce((sum, each) => sum + each, 0));
  }

  private note(file: File, words: string): void {
    const note = this.notes.get(file);
    if (note && note.textContent !== words) note.textContent = words;
  }
}
