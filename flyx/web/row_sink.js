/**
 * A Sink (flyx.js) that makes one row of bytes of what is received, from the first to the last, for an output
 * that cannot go back: one file as it is, all else as one ZIP archive.
 *
 * @module
 */

import { concat } from "./bytes.js";
import { isArchive, nameFor } from "./downloads.js";
import { archiveEnd, crc32, dataDescriptor, directoryEntry, localHeader } from "./zip.js";

/**
 * Where the bytes go. Its methods are called one at a time.
 *
 * @typedef {object} Output
 * @property {(name: string, size: number | null) => Promise<void>} begin First: the name of the download and
 *     its bytes, null if nobody knows.
 * @property {(bytes: Uint8Array) => Promise<void>} write Append; they are the output's to transfer.
 * @property {() => Promise<void>} complete All is written.
 * @property {() => void} abort There will be no more of it, and what there is must not look whole.
 * @property {Blob | null} [file] All of it, if the page has yet to have it saved.
 */

/** Bytes that go to the output at once: what is smaller is gathered. */
const GATHERED = 1 << 20;

/** @implements {import("./flyx.js").Sink} */
export class RowSink {
  #output;
  #isArchive = false;
  /** Members that are complete, and the one that is not. */
  #members = [];
  #current = null;
  /** How many bytes there are so far, and those that the output has not yet. */
  #end = 0;
  /** @type {Uint8Array[]} */
  #gathered = [];
  #gatheredSize = 0;
  /** The name of the download; set by begin(). */
  name = "";

  /** @param {Output} output */
  constructor(output) {
    this.#output = output;
  }

  /** Where it goes, to follow "Saved". */
  get place() {
    return `with the downloads, as ${this.name}`;
  }

  get file() {
    return this.#output.file ?? null;
  }

  async begin(manifest) {
    this.#isArchive = isArchive(manifest);
    this.name = nameFor(manifest);
    const [first] = manifest.entries;
    const isKnown = !this.#isArchive && manifest.content !== "stream";
    await this.#output.begin(this.name, isKnown ? first.size : null);
  }

  async open({ path, kind, size, mtime }, offset) {
    if (offset) throw new Error("a file goes on of which nothing is there");
    this.#giveUp();
    const isDirectory = kind === "directory";
    this.#current = { path, isDirectory, size, mtime, crc: 0, at: this.#end, streamed: !isDirectory };
    if (this.#isArchive) await this.#put(localHeader(this.#current));
  }

  async write(_entry, _offset, bytes) {
    if (this.#isArchive) this.#current.crc = crc32(bytes, this.#current.crc);
    await this.#put(bytes);
  }

  async finish() {
    if (this.#isArchive && this.#current.streamed) await this.#put(dataDescriptor(this.#current));
    this.#members.push(this.#current);
    this.#current = null;
  }

  async discard() {
    this.#giveUp();
  }

  async end(error) {
    if (error) {
      this.#output.abort();
      return;
    }
    try {
      if (this.#isArchive) await this.#putDirectory();
      await this.#flush();
      await this.#output.complete();
    } catch (failure) {
      this.#output.abort();
      throw failure;
    }
  }

  /** Drop what was begun. Its bytes stay in an archive, whose directory does not tell of them. */
  #giveUp() {
    if (!this.#isArchive && this.#end) throw new Error("what was saved of it already cannot be taken back");
    this.#current = null;
  }

  async #putDirectory() {
    const at = this.#end;
    for (const member of this.#members) await this.#put(directoryEntry(member));
    await this.#put(archiveEnd(this.#members.length, this.#end - at, at));
  }

  async #put(bytes) {
    this.#end += bytes.length;
    this.#gathered.push(bytes);
    this.#gatheredSize += bytes.length;
    if (this.#gatheredSize >= GATHERED) await this.#flush();
  }

  async #flush() {
    const [first, ...others] = this.#gathered;
    if (!first) return;
    const bytes = others.length ? concat(this.#gathered) : first;
    this.#gathered = [];
    this.#gatheredSize = 0;
    await this.#output.write(bytes);
  }
}
