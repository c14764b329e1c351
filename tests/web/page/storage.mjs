/**
 * The browser's storage (OPFS) as far as kept_worker.js uses it, in a directory of this computer; and that
 * worker, as often as it is started anew.
 */

import fs from "node:fs";
import path from "node:path";

/** FileSystemSyncAccessHandle. */
class SyncHandle {
  constructor(file, room) {
    this.descriptor = fs.openSync(file, fs.existsSync(file) ? "r+" : "w+");
    this.room = room;
  }

  getSize() {
    return fs.fstatSync(this.descriptor).size;
  }

  read(bytes, { at }) {
    return fs.readSync(this.descriptor, bytes, 0, bytes.length, at);
  }

  /** As Firefox does, beyond the quota it writes nothing and fails at nothing. */
  write(bytes, { at }) {
    if (at + bytes.length > this.room.bytes) return 0;
    return fs.writeSync(this.descriptor, bytes, 0, bytes.length, at);
  }

  truncate(size) {
    fs.ftruncateSync(this.descriptor, size);
  }

  flush() {}

  close() {
    fs.closeSync(this.descriptor);
  }
}

class DirectoryHandle {
  constructor(directory, room) {
    this.directory = directory;
    this.room = room;
  }

  async getDirectoryHandle(name) {
    const directory = path.join(this.directory, name);
    fs.mkdirSync(directory, { recursive: true });
    return new DirectoryHandle(directory, this.room);
  }

  async getFileHandle(name) {
    const file = path.join(this.directory, name);
    return { createSyncAccessHandle: async () => new SyncHandle(file, this.room) };
  }
}

let started = 0;

/** A worker on the storage in a directory, as a page has it that was just loaded; `call` calls a method. */
export async function startWorker(directory, room = { bytes: Infinity }) {
  const storage = { getDirectory: async () => new DirectoryHandle(directory, room) };
  Object.defineProperty(globalThis, "navigator", { value: { storage }, configurable: true });
  const answers = new Map();
  globalThis.postMessage = (message) => {
    const [number, result, error] = structuredClone(message);
    answers.get(number)(result, error);
  };
  globalThis.onmessage = null;
  await import(`../../../flyx/web/kept_worker.js?${(started += 1)}`);
  const receive = globalThis.onmessage;
  let count = 0;
  return (method, ...parameters) =>
    new Promise((resolve, reject) => {
      const number = (count += 1);
      answers.set(number, (result, error) => (error ? reject(new DOMException(error.message, error.name)) : resolve(result)));
      receive({ data: [number, method, ...parameters] });
    });
}
