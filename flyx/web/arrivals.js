/**
 * What has arrived of one offer, over one connection after another: what the next one goes on from.
 *
 * @module
 */

import { hex } from "./bytes.js";
import { BLOCK_SIZE } from "./manifest.js";
import { DIGEST_SIZE, Sha256 } from "./sha256.js";

/** @typedef {import("./manifest_inbox.js").Offered} Offered */

/** Digests in order, in as many bytes as they have. */
class DigestList {
  #bytes = new Uint8Array(DIGEST_SIZE);
  count = 0;

  /** @param {Uint8Array} digest */
  append(digest) {
    const end = (this.count + 1) * DIGEST_SIZE;
    if (end > this.#bytes.length) {
      const more = new Uint8Array(2 * this.#bytes.length);
      more.set(this.#bytes);
      this.#bytes = more;
    }
    this.#bytes.set(digest, end - DIGEST_SIZE);
    this.count++;
  }

  get bytes() {
    return this.#bytes.subarray(0, this.count * DIGEST_SIZE);
  }

  /** @returns {string[]} In hex. */
  texts() {
    return Array.from({ length: this.count }, (_, i) =>
      hex(this.#bytes.subarray(i * DIGEST_SIZE, (i + 1) * DIGEST_SIZE)),
    );
  }
}

const TO_COME = 0;
const HERE = 1;
const MISSING = 2;

/** What is here, and known to be good. */
export class Arrivals {
  #states;
  #digests;
  /**
   * Of files of which there is a part: the digests of its blocks, by index.
   *
   * @type {Map<number, DigestList>}
   */
  #parts = new Map();
  /** Of a stream: its verified blocks, and bytes in them. */
  streamDigest = new Sha256();
  streamOffset = 0;
  files = 0;
  bytes = 0;
  /** Entries that we go without, those of them that are files, and bytes of these. */
  missing;
  #missingFiles = 0;
  missingBytes = 0;
  /** Directories have been made. */
  isBegun = false;

  /** @param {Offered} offered */
  constructor(offered) {
    this.offered = offered;
    this.isStream = offered.manifest.content === "stream";
    this.#states = new Uint8Array(offered.rows.length);
    this.#digests = new Uint8Array(offered.rows.length * DIGEST_SIZE);
    this.missing = offered.leftOut.length + offered.failures;
  }

  /** Take what a sink has from another day. @param {readonly import("./flyx.js").Held[]} held */
  hold(held) {
    for (const { index, digests, complete } of held) {
      const row = this.offered.rows[index];
      const isWhole = digests.length === Math.ceil(row.size / BLOCK_SIZE);
      if (row.kind !== "file" || this.isStream || digests.length * BLOCK_SIZE >= row.size + BLOCK_SIZE)
        continue;
      if (complete && isWhole) {
        const whole = new Sha256();
        for (const digest of digests) whole.update(digest);
        this.finish(index, whole.digest());
      } else {
        for (const digest of digests) this.appendBlock(index, digest);
      }
    }
  }

  /** @param {number} index */
  isHere(index) {
    return this.#states[index] === HERE;
  }

  /** Whether an entry is a file that is to come. @param {number} index */
  isToCome(index) {
    return this.offered.rows[index].kind === "file" && this.#states[index] === TO_COME;
  }

  get isComplete() {
    return this.files + this.#missingFiles === this.offered.manifest.files;
  }

  /** File bytes that are verified, in files and parts. */
  get verified() {
    let bytes = this.isStream && !this.files ? this.streamOffset : this.bytes;
    for (const index of this.#parts.keys()) bytes += this.partSize(index);
    return bytes;
  }

  /** Digests of the blocks that are here of a file, in one string. @param {number} index */
  blocks(index) {
    return this.#parts.get(index)?.bytes ?? new Uint8Array(0);
  }

  /** Bytes that are here of a file that is not complete. @param {number} index */
  partSize(index) {
    const count = this.#parts.get(index)?.count ?? 0;
    return Math.min(count * BLOCK_SIZE, this.offered.rows[index].size);
  }

  /** @param {number} index @param {Uint8Array} digest */
  appendBlock(index, digest) {
    const list = this.#parts.get(index) ?? new DigestList();
    this.#parts.set(index, list);
    list.append(digest);
  }

  /** The part of a file is of no use. @param {number} index */
  restart(index) {
    this.#parts.delete(index);
  }

  /** @param {number} index @param {Uint8Array} digest */
  finish(index, digest) {
    this.#parts.delete(index);
    this.#states[index] = HERE;
    this.#digests.set(digest, index * DIGEST_SIZE);
    this.files++;
    this.bytes += this.isStream ? this.streamOffset : this.offered.rows[index].size;
  }

  /** A file will not be here. @param {number} index */
  lose(index) {
    this.#parts.delete(index);
    this.#states[index] = MISSING;
    this.missing++;
    this.#missingFiles++;
    this.missingBytes += this.offered.rows[index].size;
  }

  /** What is to be told of it. @returns {import("./messages.js").Found[]} */
  found() {
    const found = [];
    for (let index = 0; index < this.#states.length; index++) {
      if (this.#states[index] === HERE) found.push({ file: index, digest: hex(this.digestOf(index)) });
      else if (this.#parts.has(index)) {
        found.push({ file: index, blocks: /** @type {DigestList} */ (this.#parts.get(index)).texts() });
      }
    }
    return found;
  }

  /** @param {number} index */
  digestOf(index) {
    return this.#digests.subarray(index * DIGEST_SIZE, (index + 1) * DIGEST_SIZE);
  }

  /** The digest of all that is here, in the order of the manifest. */
  digest() {
    const whole = new Sha256();
    for (let index = 0; index < this.#states.length; index++) {
      if (this.#states[index] === HERE) whole.update(this.digestOf(index));
    }
    return whole.digest();
  }
}
