/**
 * An Output (row_sink.js) that is kept in memory until it is complete, and then saved as a download: for
 * browsers that let a page have nothing at all, as those do that block cookies. It takes no more than MOST.
 *
 * @module
 */

import { sizeText } from "./texts.js";

/** Bytes. A tab of a phone has hardly more. */
export const MOST = 500 * 10 ** 6;

/** @implements {import("./row_sink.js").Output} */
export class MemoryOutput {
  /** @type {Blob[]} */
  #parts = [];
  #size = 0;
  /** @type {Blob | null} */
  file = null;

  async begin() {}

  async write(bytes) {
    this.#size += bytes.length;
    if (this.#size > MOST) {
      throw new DOMException(`this window can take at most ${sizeText(MOST)}`, "QuotaExceededError");
    }
    // What is in a Blob is the browser's, which may put it elsewhere.
    this.#parts.push(new Blob([bytes]));
  }

  async complete() {
    this.file = new Blob(this.#parts);
  }

  abort() {
    this.#parts = [];
  }
}
