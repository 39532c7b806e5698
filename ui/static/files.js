// The files of what was dropped: folders are walked, what is hidden is left out.

export async function droppedFiles(transfer) {
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  if (!entries.length) return visible([...transfer.files]);
  return visible((await Promise.all(entries.map(filesOf))).flat());
}

export const visible = (files) => files.filter((file) => !file.name.startsWith("."));

async function filesOf(entry) {
  if (entry.isFile) return [await new Promise((resolve, reject) => entry.file(resolve, reject))];
  const reader = entry.createReader();
  const found = [];
  let some;
  do {
    some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject)); // 100 at most
    for (const inner of some) found.push(...(await filesOf(inner)));
  } while (some.length);
  return found;
}
