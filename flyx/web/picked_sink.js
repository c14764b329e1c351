/**
 * Sinks (flyx.js) for browsers that let a page write where the person says: into one file, or into a folder.
 *
 * Each pick has to be the answer to a click. The browser writes beside a file and puts it in its place when
 * it is complete, so nothing that is there is damaged by what breaks off; and nothing is overwritten but what
 * the person has picked in the browser's own dialog, which asks.
 *
 * @module
 */

import { downloadName, freeName } from "./texts.js";

/** Whether this browser has the dialogs. */
export function canPick() {
  return "showSaveFilePicker" in window && "showDirectoryPicker" in window;
}

/**
 * Let the person choose where a manifest goes.
 *
 * @param {import("./flyx.js").Manifest} manifest
 * @returns {Promise<FileSink | FolderSink | null>} null if the person would rather not.
 */
export async function pick(manifest) {
  const [entry, ...others] = manifest.entries;
  try {
    if (entry.kind === "file" && !others.length && !entry.path.includes("/")) {
      return new FileSink(await window.showSaveFilePicker({ suggestedName: downloadName(entry.path) }));
    }
    return new FolderSink(await window.showDirectoryPicker({ mode: "readwrite" }));
  } catch (error) {
    if (error.name === "AbortError") return null;
    throw error;
  }
}

/**
 * The only file of a manifest.
 *
 * @implements {import("./flyx.js").Sink}
 */
class FileSink {
  #handle;
  #writable = null;

  constructor(handle) {
    this.#handle = handle;
  }

  /** Where it goes, to follow "Saved". */
  get place() {
    return `as ${this.#handle.name}`;
  }

  async begin() {}

  async open(entry, offset) {
    this.#writable = await opened(this.#handle, offset, this.#writable);
  }

  async write(entry, offset, bytes) {
    await this.#writable.write(bytes);
  }

  async finish() {
    await this.#writable.close();
    this.#writable = null;
    return this.#handle.name;
  }

  async discard() {
    await dropped(this.#writable);
    this.#writable = null;
  }

  async end() {
    await dropped(this.#writable);
  }
}

/**
 * All of a manifest, below a folder. What begins with a name that the folder has already is put below
 * another name, with a number.
 *
 * @implements {import("./flyx.js").Sink}
 */
class FolderSink {
  #folder;
  #roots = new Map();
  /** The folder of the last entry, by its path: the next one is mostly in the same. */
  #last = { path: "", folder: null };
  #file = null;
  #writable = null;
  #saved = "";

  constructor(folder) {
    this.#folder = folder;
  }

  /** Where it goes, to follow "Saved". */
  get place() {
    return `in the folder ${this.#folder.name}`;
  }

  async begin(manifest) {
    const taken = new Set();
    for await (const name of this.#folder.keys()) taken.add(folded(name));
    for (const root of manifest.roots) {
      const name = freeName(root, (tried) => taken.has(folded(tried)));
      taken.add(folded(name));
      this.#roots.set(root, name);
    }
  }

  async open(entry, offset) {
    if (this.#writable && offset === 0) {
      this.#writable = await opened(this.#file, offset, this.#writable);
      return;
    }
    const [root, ...rest] = entry.path.split("/");
    const parts = [this.#roots.get(root), ...rest];
    if (entry.kind === "directory") {
      await this.#folderOf(parts);
      this.#saved = parts.join("/");
      return;
    }
    const name = parts.pop();
    const folder = await this.#folderOf(parts);
    this.#file = await created(folder, name);
    this.#saved = [...parts, this.#file.name].join("/");
    this.#writable = await opened(this.#file, offset, null);
  }

  async write(entry, offset, bytes) {
    await this.#writable.write(bytes);
  }

  async finish(entry) {
    await this.#writable?.close();
    this.#writable = null;
    return this.#saved === entry.path ? undefined : this.#saved;
  }

  async discard() {
    await dropped(this.#writable);
    this.#writable = null;
  }

  async end() {
    await dropped(this.#writable);
  }

  async #folderOf(parts) {
    const path = parts.join("/");
    if (this.#last.folder && this.#last.path === path) return this.#last.folder;
    let folder = this.#folder;
    for (const part of parts) folder = await folder.getDirectoryHandle(part, { create: true });
    this.#last = { path, folder };
    return folder;
  }
}

function folded(name) {
  return name.normalize("NFC").toLowerCase();
}

/** A file of this name, or of one that the browser does not take for a danger (such as .lnk). */
async function created(folder, name) {
  try {
    return await folder.getFileHandle(name, { create: true });
  } catch (error) {
    if (!(error instanceof TypeError)) throw error;
    return folder.getFileHandle(`${name}.download`, { create: true });
  }
}

/** A writable for the beginning of a file. */
async function opened(handle, offset, before) {
  await dropped(before);
  if (offset) throw new Error("a file goes on of which nothing is there");
  return handle.createWritable();
}

async function dropped(writable) {
  try {
    await writable?.abort();
  } catch {
    // It has failed already, and is gone.
  }
}
