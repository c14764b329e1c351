/**
 * A Sink (flyx.js) for browsers that do not let a page write to the disk: all goes to the browser's own
 * storage, and when it is complete the browser saves it as a download, several files as one ZIP archive. An
 * unfinished one is kept for another try.
 *
 * @module
 */

import { isArchive, nameFor } from "./downloads.js";

/** Milliseconds for which what is unfinished is kept. */
const KEPT = 7 * 24 * 3600 * 1000;

const DIRECTORY = "flyx";

/** What this page holds, by its id, and how to let go of it. */
const held = new Map();

/** Whether this browser has what it takes; a private window may let the page keep nothing all the same. */
export function canKeep() {
  return Boolean(navigator.storage?.getDirectory && navigator.locks);
}

/**
 * Bytes that this browser lets the page keep of what is offered, with those that it has of it already.
 *
 * @param {import("./flyx.js").Manifest} manifest
 */
export async function roomFor({ id }) {
  if (!canKeep()) return 0;
  try {
    const root = await navigator.storage.getDirectory();
    const directory = await root.getDirectoryHandle(DIRECTORY, { create: true });
    const { quota = Infinity, usage = 0 } = (await navigator.storage.estimate?.()) ?? {};
    return Math.max(0, quota - usage) + (await heldOf(directory, id));
  } catch {
    return 0;
  }
}

async function heldOf(directory, id) {
  try {
    return await unfinished(await directory.getDirectoryHandle(id));
  } catch {
    return 0;
  }
}

/** @implements {import("./flyx.js").Sink} */
export class KeptSink {
  #worker = null;
  #calls = new Map();
  #count = 0;
  #letGo = () => {};

  /** Set by begin(). */
  #id = "";

  /**
   * What was received, when all is here.
   *
   * @type {File | null}
   */
  file = null;

  /** Its name as a download; set by begin(). */
  name = "";

  async begin(manifest) {
    this.#id = manifest.id;
    this.name = nameFor(manifest);
    await this.#hold();
    this.#start();
    const archive = isArchive(manifest);
    const anew = manifest.content === "stream";
    const indexes = new Set(await this.#call("begin", { id: manifest.id, archive, anew }));
    return this.#call("recall", manifest.entries.filter(({ index }) => indexes.has(index)).map(plain));
  }

  async open(entry, offset) {
    await this.#call("open", plain(entry), offset);
  }

  async write(entry, offset, bytes, digest) {
    await this.#call("write", bytes, digest);
  }

  async finish() {
    await this.#call("finish");
  }

  async discard() {
    await this.#call("discard");
  }

  async end(error) {
    try {
      if (this.#worker) await this.#call(error ? "close" : "complete");
      if (!error) this.file = await this.#open();
    } finally {
      this.#worker?.terminate();
      // What is complete stays ours: the browser may still be copying it when the page is done.
      if (error) this.#letGo();
    }
  }

  async #open() {
    const root = await navigator.storage.getDirectory();
    const directory = await (await root.getDirectoryHandle(DIRECTORY)).getDirectoryHandle(this.#id);
    return (await directory.getFileHandle("content")).getFile();
  }

  /** Be the only page that has it, until it is let go; this one may have it from before. */
  async #hold() {
    this.#letGo = held.get(this.#id) ?? this.#letGo;
    if (held.has(this.#id)) return;
    const isOurs = await new Promise((resolve, reject) => {
      const hold = async (lock) => {
        if (lock) {
          await new Promise((done) => {
            this.#letGo = done;
            held.set(this.#id, done);
            resolve(true);
          });
          held.delete(this.#id);
        }
        resolve(false);
      };
      navigator.locks.request(lockOf(this.#id), { ifAvailable: true }, hold).catch(reject);
    });
    if (!isOurs) throw new Error("another tab of this browser receives the same; close it first");
  }

  #start() {
    this.#worker = new Worker(new URL("kept_worker.js", import.meta.url), { type: "module" });
    this.#worker.onmessage = ({ data: [number, result, error] }) => {
      const { resolve, reject } = this.#calls.get(number);
      this.#calls.delete(number);
      if (error) reject(new DOMException(error.message, error.name));
      else resolve(result);
    };
    this.#worker.onerror = (event) => {
      const error = new Error(event.message || "the part of the page that writes could not be loaded");
      for (const { reject } of this.#calls.values()) reject(error);
      this.#calls.clear();
    };
  }

  #call(method, ...parameters) {
    const number = this.#count++;
    const bytes = parameters[0] instanceof Uint8Array ? [parameters[0].buffer] : [];
    return new Promise((resolve, reject) => {
      this.#calls.set(number, { resolve, reject });
      this.#worker.postMessage([number, method, ...parameters], bytes);
    });
  }
}

/**
 * Drop what was saved, or is unfinished for long; return what is unfinished.
 *
 * @param {boolean} [all] Drop that as well.
 * @returns {Promise<number>} Bytes of it.
 */
export async function tidy(all = false) {
  let kept = 0;
  const root = await navigator.storage.getDirectory();
  const directory = await root.getDirectoryHandle(DIRECTORY, { create: true });
  for await (const [id, each] of directory.entries()) {
    await navigator.locks.request(lockOf(id), { ifAvailable: true }, async (lock) => {
      // Another tab has it.
      if (!lock) return;
      const size = all ? 0 : await unfinished(each);
      if (size) kept += size;
      else await directory.removeEntry(id, { recursive: true });
    });
  }
  return kept;
}

async function unfinished(directory) {
  try {
    const content = await (await directory.getFileHandle("content")).getFile();
    const journal = await (await directory.getFileHandle("journal")).getFile();
    return journal.size && Date.now() - content.lastModified < KEPT ? content.size : 0;
  } catch {
    return 0;
  }
}

function lockOf(id) {
  return `flyx ${id}`;
}

/** What the worker has to know of an entry. */
function plain({ index, path, kind, size, mtime }) {
  return { index, path, kind, size, mtime };
}
