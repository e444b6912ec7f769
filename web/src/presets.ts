/** The choice of quality, as the service offers it; the last choice is remembered. */

import { type Preset, request } from "./api";
import { make } from "./dom";
import { isVideo } from "./pick";

const REMEMBERED = "splatworks-preset";

/** The presets as radio buttons. */
export class Presets {
  readonly element = make("fieldset", { className: "presets" }, make("legend", { textContent: "Quality" }));
  private presets: Preset[] = [];

  /** Fetch what there is; throws the problem. `onChange` hears of each choice. */
  async fill(onChange: () => void): Promise<void> {
    this.presets = (await request<{ items: Preset[] }>("/v1/presets")).items;
    const last = localStorage.getItem(REMEMBERED);
    const first = this.presets.find(({ name }) => name === last) ?? this.presets[0];
    this.element.append(...this.presets.map((preset) => choice(preset, preset === first)));
    this.element.onchange = () => (localStorage.setItem(REMEMBERED, this.chosen), onChange());
  }

  /** Name of the chosen one. */
  get chosen(): string {
    return this.element.querySelector<HTMLInputElement>("input:checked")?.value ?? "draft";
  }

  /** With fewer photos the service refuses the job. */
  get minPhotos(): number {
    return this.ingest?.min_photos ?? 1;
  }

  /** How many photos a job over these files has at most: a video counts as the frames that may be taken of it. */
  countPhotos(files: File[]): number {
    const videos = files.filter(isVideo).length;
    return files.length - videos + videos * (this.ingest?.frames ?? 1);
  }

  private get ingest(): Preset["options"]["ingest"] | undefined {
    return this.presets.find(({ name }) => name === this.chosen)?.options.ingest;
  }
}

function choice(preset: Preset, checked: boolean): HTMLElement {
  const radio = make("input", { type: "radio", name: "preset", value: preset.name, checked });
  const words = make("span", {}, make("strong", { textContent: preset.name }), make("small", { textContent: describe(preset) }));
  return make("label", {}, radio, words);
}

function describe({ options: { train } }: Preset): string {
  const short = new Intl.NumberFormat("en", { notation: "compact" });
  const parts = [`${short.format(train.steps)} steps`, `up to ${short.format(train.max_gaussians)} gaussians`, `photos at ${train.max_side} px`];
  return parts.map((part) => part.replaceAll(" ", "\u00a0")).join(", "); // lines break between the parts only
}
