/** Photos and videos out of a drop, a folder, a file dialog or a camera, and what comes with them: masks and camera poses. */

const PHOTO = /\.(jpe?g|png|webp|tiff?|heic|heif|avif)$/i;
const VIDEO = /\.(mp4|m4v|mov|3gp|webm|mkv|avi)$/i;
const MASK = /(?:^|\/)masks\/([^/]+)$/i;
const POSES = /(?:^|\/)(transforms(?:_train)?\.json)$/i;
const MODEL = /(?:^|\/)sparse\/(?:0\/)?((?:cameras|images|points3D)\.(?:bin|txt))$/;

/** What was chosen: photos and videos to send, what goes with them (named as the service knows it), how many other files were left alone. */
export interface Picked {
  photos: File[];
  companions: File[];
  ignored: number;
}

/** Nothing. */
export const NOTHING: Picked = { photos: [], companions: [], ignored: 0 };

/** A file and where it lay: a folder's photos and its masks may have the same names. */
export interface Found {
  file: File;
  path: string;
}

/** Files of a file dialog. */
export function filesOfInput(files: FileList | null): Found[] {
  return [...(files ?? [])].map((file) => ({ file, path: file.webkitRelativePath || file.name }));
}

/** What was picked before with further files; a file that is there already is not taken twice. The server looks inside and has the last word. */
export function pick(before: Picked, found: Found[]): Picked {
  const all: Picked = { photos: [...before.photos], companions: [...before.companions], ignored: before.ignored };
  const known = new Set([...all.photos, ...all.companions].map(markOf));
  for (const each of found.filter(({ path }) => !path.split("/").some((part) => part.startsWith(".")))) {
    const name = companionName(each.path);
    const file = name ? new File([each.file], name, { type: each.file.type, lastModified: each.file.lastModified }) : each.file;
    if (!name && !PHOTO.test(file.name) && !isVideo(file)) all.ignored++;
    else if (!known.has(markOf(file))) (name ? all.companions : all.photos).push(file);
    known.add(markOf(file));
  }
  all.photos.sort((a, b) => a.name.localeCompare(b.name, "en", { numeric: true }));
  return all;
}

/** Whether a file is called like a video. */
export function isVideo(file: File): boolean {
  return VIDEO.test(file.name);
}

/** What tells a file from others without reading it. */
export function markOf(file: File): string {
  return `${file.webkitRelativePath || file.name} ${file.size} ${file.lastModified}`;
}

function companionName(path: string): string | null {
  const [mask, poses, model] = [MASK.exec(path), POSES.exec(path), MODEL.exec(path)];
  if (mask) return `masks/${mask[1]}`;
  return poses ? (poses[1] ?? "").toLowerCase() : model ? `sparse/${model[1]}` : null;
}

/** All files of a drop, folders opened. */
export async function filesOfDrop(transfer: DataTransfer): Promise<Found[]> {
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry()).filter((entry) => entry !== null);
  if (entries.length === 0) return filesOfInput(transfer.files);
  const nested = await Promise.all(entries.map(filesOfEntry));
  return nested.flat();
}

async function filesOfEntry(entry: FileSystemEntry): Promise<Found[]> {
  if (entry.isFile) return [{ file: await new Promise<File>((resolve, reject) => (entry as FileSystemFileEntry).file(resolve, reject)), path: entry.fullPath }];
  const reader = (entry as FileSystemDirectoryEntry).createReader();
  const found: Found[] = [];
  for (;;) {
    // A reader gives at most 100 entries a call, and an empty list at the end.
    const part = await new Promise<FileSystemEntry[]>((resolve, reject) => reader.readEntries(resolve, reject));
    if (part.length === 0) return found;
    for (const child of part) found.push(...(await filesOfEntry(child)));
  }
}
