/** Photos out of a drop, a folder or a file dialog. */

const PHOTO = /\.(jpe?g|png|webp|tiff?)$/i;

/** What was chosen: photos to send, and how many other files were left alone. */
export interface Picked {
  photos: File[];
  ignored: number;
}

/** Sort files into photos and others; the server looks inside and has the last word. */
export function pick(files: Iterable<File>): Picked {
  const all = [...files];
  const photos = all.filter((file) => PHOTO.test(file.name) && !file.name.startsWith("."));
  photos.sort((a, b) => a.name.localeCompare(b.name, "en", { numeric: true }));
  return { photos, ignored: all.length - photos.length };
}

/** All files of a drop, folders opened. */
export async function filesOfDrop(transfer: DataTransfer): Promise<File[]> {
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry()).filter((entry) => entry !== null);
  if (entries.length === 0) return [...transfer.files];
  const nested = await Promise.all(entries.map(filesOfEntry));
  return nested.flat();
}

async function filesOfEntry(entry: FileSystemEntry): Promise<File[]> {
  if (entry.isFile) return [await new Promise<File>((resolve, reject) => (entry as FileSystemFileEntry).file(resolve, reject))];
  const reader = (entry as FileSystemDirectoryEntry).createReader();
  const found: File[] = [];
  for (;;) {
    // A reader gives at most 100 entries a call, and an empty list at the end.
    const part = await new Promise<FileSystemEntry[]>((resolve, reject) => reader.readEntries(resolve, reject));
    if (part.length === 0) return found;
    for (const child of part) found.push(...(await filesOfEntry(child)));
  }
}
