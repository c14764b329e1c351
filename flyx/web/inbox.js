/**
 * The files that arrive, frame by frame: puts blocks together, and judges their order
 * (flyx/transfer/inbox.py). Of the messages nothing is kept.
 *
 * @module
 */

import { areEqual } from "./bytes.js";
import { corruptData, protocolError } from "./errors.js";
import { BLOCK_END, DATA, FILE_END, FILE_FAILED, HOLE, SHORTEST_DATA } from "./frames.js";
import { BLOCK_SIZE, MAX_FILE_SIZE } from "./manifest.js";
import { Sha256 } from "./sha256.js";

/** @typedef {import("./frames.js").Frame} Frame */

/**
 * What is to be done with what has come, in order.
 *
 * @typedef {{ do: "open", file: number, offset: number }} Open
 * @typedef {{ do: "write", file: number, offset: number, length: number, bytes: Uint8Array | null, digest:
 *     Uint8Array | null }} Write Without bytes and digest it is a hole: zeros.
 * @typedef {{ do: "finish", file: number, digest: Uint8Array }} Finish
 * @typedef {{ do: "discard", file: number, code: string, dropped: number }} Discard `dropped` bytes had come
 *     of a block that nobody writes.
 * @typedef {Open | Write | Finish | Discard} Operation
 */

/** The SHA-256 of a block of zeros. @type {Map<number, Uint8Array>} */
const HOLE_DIGESTS = new Map();

/** @param {number} length */
export function holeDigest(length) {
  const known = HOLE_DIGESTS.get(length) ?? new Sha256().update(new Uint8Array(length)).digest();
  if (HOLE_DIGESTS.size < 16) HOLE_DIGESTS.set(length, known);
  return known;
}

/** Takes the frames of one file after another. */
export class FileInbox {
  #arrivals;
  // The first file that has not ended, and whether it has begun.
  #file = 0;
  #isOpen = false;
  // Where its next DATA frame must be, and where the open block began.
  #offset = 0;
  #blockStart = 0;
  /** What has come of that block, at the beginning of the memory of a whole one. @type {Uint8Array | null} */
  #block = null;
  /** Its last part was short: nothing may follow. */
  #isShort = false;
  #digest = new Sha256();

  /**
   * @param {import("./arrivals.js").Arrivals} arrivals Read only: what was here when this connection began.
   */
  constructor(arrivals) {
    this.#arrivals = arrivals;
    if (arrivals.isStream) {
      this.#offset = this.#blockStart = arrivals.streamOffset;
      this.#digest = arrivals.streamDigest.copy();
    }
  }

  /** Take a frame; return what is to be done. @param {Frame} frame @returns {Operation[]} */
  take(frame) {
    const operations = this.#enter(frame);
    if (frame.kind === DATA) this.#data(frame);
    else if (frame.kind === BLOCK_END) operations.push(this.#blockEnd(frame));
    else if (frame.kind === HOLE) operations.push(this.#hole(frame));
    else if (frame.kind === FILE_END) operations.push(this.#fileEnd(frame));
    else if (frame.kind === FILE_FAILED) operations.push(this.#abandon(frame));
    return operations;
  }

  /** Go on to the file of this frame, if nothing that is to come lies between. @param {Frame} frame */
  #enter({ file, kind, offset }) {
    const arrivals = this.#arrivals;
    const rows = arrivals.offered.rows;
    if (file >= rows.length) throw protocolError("data of an entry that was not accepted");
    while (this.#file < file && !this.#comes(this.#file)) this.#nextFile();
    if (this.#file !== file || !this.#comes(file)) throw protocolError("files out of order");
    /** @type {Operation[]} */
    const operations = [];
    if (!this.#isOpen && kind !== FILE_FAILED) {
      this.#isOpen = true;
      if (!arrivals.isStream) {
        // A sender to whom it is another file by now begins anew.
        const isAnew = (kind === DATA || kind === HOLE) && offset === 0;
        this.#offset = this.#blockStart = isAnew ? 0 : arrivals.partSize(file);
        if (!isAnew) this.#digest.update(arrivals.blocks(file));
      }
      operations.push({ do: "open", file, offset: this.#offset });
    }
    return operations;
  }

  /** Whether a file is to come over this connection. @param {number} index */
  #comes(index) {
    return this.#isOpen || this.#arrivals.isToCome(index);
  }

  get #size() {
    return this.#arrivals.isStream ? MAX_FILE_SIZE : this.#arrivals.offered.rows[this.#file].size;
  }

  /** Bytes of the open block that have come. */
  get #blockLength() {
    return this.#offset - this.#blockStart;
  }

  /** Where the open block ends at the latest. */
  get #longest() {
    const boundary = (Math.floor(this.#blockStart / BLOCK_SIZE) + 1) * BLOCK_SIZE;
    return Math.min(boundary, this.#size);
  }

  /** @param {Frame} frame */
  #data({ offset, payload }) {
    if (offset !== this.#offset || offset + payload.length > this.#longest)
      throw protocolError("data out of place");
    // Only the last part of a block may be short.
    if (this.#isShort) throw protocolError("data in splinters");
    this.#isShort = payload.length < SHORTEST_DATA;
    this.#block ??= new Uint8Array(BLOCK_SIZE);
    this.#block.set(payload, this.#blockLength);
    this.#offset += payload.length;
  }

  /** @param {Frame} frame @returns {Write} */
  #blockEnd({ file, offset, payload }) {
    const isWhole = this.#arrivals.isStream || this.#offset === this.#longest;
    if (offset !== this.#blockStart || !isWhole || !this.#blockLength) {
      throw protocolError("a block that ends out of place");
    }
    const length = this.#blockLength;
    const bytes = this.#takeBlock(length);
    const digest = payload.slice();
    this.#digest.update(digest);
    this.#nextBlock();
    return { do: "write", file, offset, length, bytes, digest };
  }

  /**
   * Return the open block, in no more memory than it needs: many that are short may wait.
   *
   * @param {number} length
   */
  #takeBlock(length) {
    const block = /** @type {Uint8Array} */ (this.#block);
    if (length < BLOCK_SIZE) return block.slice(0, length);
    this.#block = null;
    return block;
  }

  /** @param {Frame} frame @returns {Write} */
  #hole({ file, offset }) {
    const end = this.#longest;
    const isNext = offset === this.#offset && offset === this.#blockStart && offset < end;
    if (this.#arrivals.isStream || !isNext) throw protocolError("a hole out of place");
    const length = end - offset;
    this.#digest.update(holeDigest(length));
    this.#offset = end;
    this.#nextBlock();
    return { do: "write", file, offset, length, bytes: null, digest: null };
  }

  /** @param {Frame} frame @returns {Finish} */
  #fileEnd({ file, offset, payload }) {
    const size = this.#arrivals.isStream ? this.#offset : this.#size;
    if (offset !== size || this.#offset !== size || this.#blockStart !== size) {
      throw protocolError("a file that ends out of place");
    }
    const digest = this.#digest.digest();
    if (!areEqual(digest, payload)) throw corruptData(this.#arrivals.offered.rows[file].path);
    this.#nextFile();
    return { do: "finish", file, digest };
  }

  /** The sender gives this file up. @param {Frame} frame @returns {Discard} */
  #abandon({ file, payload }) {
    const dropped = this.#blockLength;
    const code = String.fromCharCode(...payload);
    this.#nextFile();
    return { do: "discard", file, code, dropped };
  }

  #nextBlock() {
    this.#blockStart = this.#offset;
    this.#isShort = false;
  }

  #nextFile() {
    this.#file++;
    this.#isOpen = false;
    this.#offset = 0;
    this.#nextBlock();
    this.#digest = new Sha256();
  }
}
