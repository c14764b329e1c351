/**
 * What a person has chosen to send: by the browser's dialogs, or by dropping it on the page.
 *
 * @module
 */

import { entryOf } from "./flyx.js";
import { freeName } from "./texts.js";

/** Sources (flyx.js), each under a path of its own. */
export class Selection {
  #sources = [];
  /** The first parts of their paths; and what those were that were chosen under a name which was taken. */
  #roots = new Set();

  get sources() {
    return this.#sources;
  }

  /** For the list that a person sees: the first parts of the paths, and how much there is below each. */
  get items() {
    const items = new Map();
    for (const { path, kind, size } of this.#sources) {
      const root = path.split("/", 1)[0];
      const item = items.get(root) ?? { root, files: 0, directories: 0, bytes: 0, isFolder: path !== root };
      if (kind === "directory") item.directories += 1;
      else item.files += 1;
      item.isFolder ||= kind === "directory";
      item.bytes += size ?? 0;
      items.set(root, item);
    }
    return [...items.values()];
  }

  /** Add what was chosen at one time: a folder whose name is taken gets another one. */
  add(sources) {
    const renamed = new Map();
    for (const source of sources) {
      const [root, ...rest] = source.path.split("/");
      // A second file of one name is another file; what is below one folder belongs together.
      const key = rest.length || source.kind === "directory" ? root : source;
      if (!renamed.has(key)) {
        const name = freeName(root, (tried) => this.#roots.has(tried));
        this.#roots.add(name);
        renamed.set(key, name);
      }
      this.#sources.push({ ...source, path: [renamed.get(key), ...rest].join("/") });
    }
  }

  remove(root) {
    this.#sources = this.#sources.filter(({ path }) => path.split("/", 1)[0] !== root);
    this.#roots.delete(root);
  }

  clear() {
    this.#sources = [];
    this.#roots.clear();
  }
}

/**
 * What a file input holds.
 *
 * @param {FileList} files
 */
export function sourcesOf(files) {
  return Array.from(files, (file) => entryOf(file));
}

/**
 * What was dropped. To be called before the event is over: the browser takes its items back then.
 *
 * @param {DataTransfer} dropped
 * @returns {Promise<import("./flyx.js").Source[]>}
 */
export function sourcesDropped(dropped) {
  const entries = Array.from(dropped.items, (item) => item.webkitGetAsEntry?.()).filter(Boolean);
  return Promise.all(entries.map(walk)).then((found) => found.flat());
}

async function walk(entry) {
  const path = entry.fullPath.replace(/^\//, "");
  if (entry.isFile) {
    const file = await promised(entry, "file");
    // Dropped files can be asked for anew, and then tell whether they are what they were.
    const look = async () => {
      const { size, lastModified } = await promised(entry, "file");
      return { size, mtime: lastModified };
    };
    return [{ ...entryOf(file, path), look }];
  }
  const found = [{ path, kind: "directory" }];
  const reader = entry.createReader();
  for (;;) {
    // Some at a time, until there are none.
    const some = await promised(reader, "readEntries");
    if (!some.length) return found;
    for (const each of some) found.push(...(await walk(each)));
  }
}

function promised(object, method) {
  return new Promise((resolve, reject) => object[method](resolve, reject));
}
