/** Where photos and videos come in: dropped, chosen, taken with a phone's camera. */

import { make } from "./dom";
import { filesOfDrop, filesOfInput, type Found } from "./pick";

/** The zone; `take` gets what came. */
export function dropZone(take: (found: Found[]) => void): HTMLElement {
  const zone = make(
    "div",
    { className: "drop" },
    make("p", { className: "with-mouse" }, make("strong", { textContent: "Drop photos, a folder or a video here" })),
    make("p", { textContent: "20 to 200 overlapping photos of one thing or place, taken while walking around it; or film it on the way." }),
    make(
      "p",
      { className: "ways" },
      ...way("photos", "Choose photos or a video", { multiple: true, accept: "image/*,video/*,.heic,.heif,.avif,.tif,.tiff,.mkv" }, "", take),
      ...way("folder", "Choose a folder", { webkitdirectory: true }, "with-mouse", take),
      ...way("camera", "Take photos", { accept: "image/*", capture: "environment" }, "with-finger", take),
    ),
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

function way(id: string, words: string, properties: Partial<HTMLInputElement>, where: string, take: (found: Found[]) => void): HTMLElement[] {
  const input = make("input", { type: "file", id, className: `hidden-input ${where}`, ...properties });
  input.onchange = () => {
    take(filesOfInput(input.files));
    input.value = ""; // so that choosing the same files again is heard
  };
  return [input, make("label", { htmlFor: id, className: `button ${where}`, textContent: words })];
}
