/**
 * The sending end of a transfer, for one receiver over one connection, as flyx/transfer/sender.py has it. No
 * I/O: a driver reads the blocks that it asks for, one after another. Done only when the receiver has
 * confirmed the digest of everything.
 *
 * Inputs besides those of Session: release, blockRead, blockFailed. Drains: nextControl, nextRead, nextData,
 * nextEvent. At most READ_AHEAD bytes are read before the wire takes them.
 *
 * @module
 */

import { areEqual, hex, unhex, utf8 } from "./bytes.js";
import { protocolError } from "./errors.js";
import { BLOCK_END, DATA, FILE_END, FILE_FAILED, FramePacker } from "./frames.js";
import { BLOCK_SIZE, blockCount } from "./manifest.js";
import { digestMessages, manifestMessages } from "./messages.js";
import { Session } from "./session.js";
import { DIGEST_SIZE, Sha256 } from "./sha256.js";

/** @typedef {import("./listing.js").SentManifest} SentManifest */

/** Bytes that may be read and packed before they are sent. */
const READ_AHEAD = 4 * BLOCK_SIZE;

/** Seconds of a rate in a portion, and bytes in one at any rate: no message is longer (rate_limit.py). */
const PORTION_TIME = 0.02;
const MIN_PORTION = 2_048;

/** What has become of an entry at the receiver. */
const HAS = 1;
const GOES_WITHOUT = 2;

/** A block to be read. @typedef {{ file: number, offset: number, length: number }} Request */

/** The state machine of the sending end. */
export class Sender extends Session {
  /** @type {"held" | "offering" | "sending" | "delivered"} */
  #state = "held";
  #manifest;
  /** Messages of the manifest that are still to be told. @type {Iterator<any>} */
  #telling = [].values();
  /** Entries below this index may be sent. */
  #accepted = 0;
  // Where reading stands, and what has been asked for and not answered.
  #file = 0;
  #offset = 0;
  /** @type {Request | null} */
  #requested = null;
  #packer;
  #fileDigest = new Sha256();
  /** By entry: its digest, once it is packed or told to be there. */
  #digests;
  #ends;
  /** Digests of the blocks that the receiver has of a file. @type {Map<number, string[]>} */
  #have = new Map();
  /** The last file of which it has told something, and the last that it goes without from the start. */
  #told = -1;
  #goneWithout = -1;
  #resumed = { files: 0, bytes: 0 };
  /** Files that could not be read as they were offered. @type {Set<number>} */
  lost = new Set();
  /** What is compared: files in the order of asking, and the digests of the first. @type {number[]} */
  #compared = [];
  #seen = new Set();
  // File bytes that it can have at most; of entries that it does not want; and those that it has verified.
  #packedBytes = 0;
  #unwantedBytes = 0;
  bytesConfirmed = 0;
  #dataSent = 0;
  #credit = 0;
  /** Data bytes a second that the receiver wants at most. @type {number | undefined} */
  rate;

  /**
   * @param {SentManifest} manifest
   * @param {number} maxMessageSize
   * @param {number} now
   */
  constructor(manifest, maxMessageSize, now) {
    super("receiver", now);
    this.#manifest = manifest;
    this.#packer = new FramePacker(maxMessageSize);
    this.#digests = new Uint8Array(manifest.rows.length * DIGEST_SIZE);
    this.#ends = new Uint8Array(manifest.rows.length);
  }

  /** Offer the manifest: the receiver's turn has come. */
  release() {
    if (this.#state !== "held") return;
    this.#state = "offering";
    this.#telling = manifestMessages(this.#manifest);
  }

  nextControl() {
    if (!this.ended && !this.outgoing.length) {
      const { value } = this.#telling.next();
      if (value) return JSON.stringify(value);
    }
    return super.nextControl();
  }

  /**
   * Return the next block to read; undefined while one is unanswered or enough is ready.
   *
   * @returns {Request | undefined}
   */
  nextRead() {
    if (this.#requested || this.ended || this.#packer.size >= READ_AHEAD) return undefined;
    const request = this.#state === "offering" ? this.#nextComparison() : this.#nextRequest();
    this.#requested = request ?? null;
    return request;
  }

  /** A block has been read; its bytes are copied. @param {Uint8Array} bytes @param {Uint8Array} digest */
  blockRead(bytes, digest) {
    const { file, offset, length } = this.#answered();
    if (this.ended) return;
    if (this.#state === "offering") this.#compare(file, offset + length, digest);
    else if (!this.lost.has(file) && !this.#ends[file]) this.#pack(file, offset, bytes, digest);
    this.#flushIfIdle();
  }

  /** A file cannot be read as it was offered, for this reason: a code of left_out.js. @param {string} code */
  blockFailed(code) {
    const { file, offset } = this.#answered();
    if (this.ended) return;
    if (this.#state === "offering") {
      this.#answerComparison(file, null);
      return;
    }
    this.lost.add(file);
    this.#have.delete(file);
    this.#fileDigest = new Sha256();
    this.#packer.add(FILE_FAILED, file, offset, utf8(code));
    this.emit({ is: "lost", file, code });
    this.#flushIfIdle();
  }

  #answered() {
    const request = /** @type {Request} */ (this.#requested);
    this.#requested = null;
    return request;
  }

  /** If nothing follows at once, a partly filled message must not wait for company. */
  #flushIfIdle() {
    if (!this.#nextRequest() || this.#packer.size < BLOCK_SIZE) this.#packer.flush();
  }

  /** Bytes of what nextData() returns; null if that is nothing. */
  get nextDataSize() {
    const [next] = this.#packer.messages;
    return this.ended || !next || this.#dataSent + next.length > this.#credit ? null : next.length;
  }

  /** Return the next message for the data channel; there is one. */
  nextData() {
    const message = this.#packer.pop();
    this.#dataSent += message.length;
    return message;
  }

  /** File bytes that the receiver will have in the end. */
  get expectedBytes() {
    return this.#manifest.bytes - this.#unwantedBytes;
  }

  /** @param {any} message */
  receive(message) {
    if (this.#state === "held") throw protocolError(`${message.type} before anything was offered`);
    switch (message.type) {
      case "hash_with":
        // We name no other algorithm in our hello.
        if (message.algorithm !== "sha256") throw protocolError("an algorithm that we do not know");
        break;
      case "compare":
        this.#ask(message.files);
        break;
      case "kept":
        for (const [file, digest] of message.files) this.#keep(file, unhex(digest));
        break;
      case "have":
        this.#hold(message);
        break;
      case "left_out":
        for (const [index, code] of message.entries) this.#goWithout(index, code);
        break;
      case "accept":
        this.#accept(message);
        break;
      case "credit":
        if (message.bytes < this.#credit || message.written > this.#packedBytes) {
          throw protocolError("credit that takes back what was given");
        }
        this.#credit = message.bytes;
        this.bytesConfirmed = message.written;
        break;
      case "saved":
        for (const file of message.files) this.#confirm(file);
        break;
      case "complete":
        this.#complete(message);
        break;
      default:
        throw protocolError(`${message.type} from a receiver`);
    }
  }

  // What is compared before anything is accepted.

  /** @param {number[]} files */
  #ask(files) {
    if (this.#state !== "offering") throw protocolError("compare out of place");
    for (const file of files) {
      if (this.#manifest.rows[file]?.kind !== "file") throw protocolError("it compares what is no file");
      if (this.#seen.has(file)) throw protocolError("it compares a file twice");
      this.#seen.add(file);
      this.#compared.push(file);
    }
  }

  /** @returns {Request | undefined} */
  #nextComparison() {
    const [file] = this.#compared;
    // As fast as the receiver takes what we have to say.
    if (file === undefined || this.outgoing.length) return undefined;
    const { size } = this.#manifest.rows[file];
    return { file, offset: this.#offset, length: Math.min(BLOCK_SIZE, size - this.#offset) };
  }

  /** @param {number} file @param {number} end @param {Uint8Array} digest */
  #compare(file, end, digest) {
    const { size } = this.#manifest.rows[file];
    if (size) this.#fileDigest.update(digest);
    if (end < size) this.#offset = end;
    else this.#answerComparison(file, hex(this.#fileDigest.digest()));
  }

  /** @param {number} file @param {string | null} digest */
  #answerComparison(file, digest) {
    this.#compared.shift();
    this.#offset = 0;
    this.#fileDigest = new Sha256();
    this.outgoing.push(...digestMessages([[file, digest]]));
  }

  // What it has already, and what it accepts.

  /** @param {number} file @param {Uint8Array} digest */
  #keep(file, digest) {
    const { size } = this.#tell(file, this.#told);
    this.#digests.set(digest, file * DIGEST_SIZE);
    this.#ends[file] = HAS;
    this.#packedBytes += size;
    this.#resumed.files++;
    this.#resumed.bytes += size;
  }

  /** @param {any} message */
  #hold({ file, first, sha256 }) {
    const isMore = file === this.#told && this.#have.has(file);
    const { size } = this.#tell(file, isMore ? file - 1 : this.#told);
    const digests = this.#have.get(file) ?? [];
    this.#have.set(file, digests);
    const known = digests.length;
    if (first !== known || known + sha256.length > blockCount(size)) {
      throw protocolError("it has blocks that the file does not");
    }
    digests.push(...sha256);
    const more = Math.min(digests.length * BLOCK_SIZE, size) - known * BLOCK_SIZE;
    this.#packedBytes += more;
    this.#resumed.bytes += more;
  }

  /** It has something of this file: check that it can. @param {number} file @param {number} after */
  #tell(file, after) {
    const row = this.#manifest.rows[file];
    if (!row || file < this.#accepted || file <= after)
      throw protocolError("it has something of a file out of place");
    if (row.kind !== "file" || this.#ends[file]) {
      throw protocolError("it has something of a file that is none, or that it leaves out");
    }
    this.#told = file;
    return row;
  }

  /** @param {any} message */
  #accept({ below, rate }) {
    const least = Math.max(this.#accepted, this.#told + 1, this.#goneWithout + 1);
    if (below < least || below > this.#ends.length)
      throw protocolError("entries accepted that were not offered");
    if (this.#compared.length) throw protocolError("entries accepted that it still compares");
    if (this.#state === "offering") {
      this.#state = "sending";
      this.rate = rate;
      if (rate) this.#packer.keepTo(Math.max(MIN_PORTION, Math.round(rate * PORTION_TIME)));
      this.emit({ is: "accepted" });
    }
    if (this.#resumed.bytes || this.#resumed.files) {
      this.emit({ is: "resumed", ...this.#resumed });
      this.#resumed = { files: 0, bytes: 0 };
      for (let file = this.#accepted; file < below; file++) {
        if (this.#ends[file] === HAS) this.emit({ is: "confirmed", file });
      }
    }
    this.#accepted = below;
  }

  /** It leaves an entry out: from the start, or because it cannot be saved after all.
   *
   * @param {number} index
   * @param {string} code
   */
  #goWithout(index, code) {
    const row = this.#manifest.rows[index];
    if (!row || this.#ends[index]) throw protocolError("it leaves out what is not there");
    if (index >= this.#accepted) {
      if (index <= this.#goneWithout) throw protocolError("it leaves out entries out of order");
      this.#goneWithout = index;
      this.#unwantedBytes += row.size;
    } else if (row.kind === "file" && !this.#isSent(index)) {
      throw protocolError("it leaves out a file that was not sent");
    }
    this.#ends[index] = GOES_WITHOUT;
    this.emit({ is: "lost", file: index, code });
  }

  /** @param {number} file */
  #confirm(file) {
    if (!this.#isSent(file) || this.#ends[file]) throw protocolError("a file confirmed that was not sent");
    this.#ends[file] = HAS;
    this.emit({ is: "confirmed", file });
  }

  /** Whether a file has been packed whole. @param {number} file */
  #isSent(file) {
    const below = this.#requested ? this.#requested.file : this.#file;
    return this.#manifest.rows[file]?.kind === "file" && file < below && !this.lost.has(file);
  }

  /** @param {any} message */
  #complete(message) {
    const { rows } = this.#manifest;
    if (this.#state !== "sending" || this.#accepted < rows.length)
      throw protocolError("complete before the end");
    if (this.#requested || this.#packer.size || this.#nextRequest()) {
      throw protocolError("complete before everything was sent");
    }
    const whole = new Sha256();
    let files = 0;
    let bytes = 0;
    rows.forEach(({ kind, size }, file) => {
      if (kind !== "file") return;
      if (this.#ends[file] === HAS) {
        whole.update(this.#digests.subarray(file * DIGEST_SIZE, (file + 1) * DIGEST_SIZE));
        files++;
        bytes += size;
      } else if (!this.#ends[file] && !this.lost.has(file)) {
        throw protocolError("complete before it has said what became of everything");
      }
    });
    const digest = hex(whole.digest());
    if (message.files !== files || message.bytes !== bytes || message.sha256 !== digest) {
      throw protocolError("it confirmed other bytes than those sent");
    }
    this.#state = "delivered";
    this.outgoing.push({ type: "done" });
    this.hasLastWord = true;
    this.ended = true;
    this.emit({ is: "delivered", files, bytes, digest });
  }

  // What is sent.

  /**
   * The block after the last one, if it may be sent; steps over what has none to send.
   *
   * @returns {Request | undefined}
   */
  #nextRequest() {
    const { rows } = this.#manifest;
    while (this.#state === "sending" && this.#file < this.#accepted) {
      const file = this.#file;
      const { kind, size } = rows[file];
      if (kind === "file" && !this.lost.has(file) && !this.#ends[file]) {
        const have = this.#offset === 0 ? this.#have.get(file) : undefined;
        // Of a file that the receiver has blocks of, the first is the last of those.
        const offset = have ? (have.length - 1) * BLOCK_SIZE : this.#offset;
        return { file, offset, length: Math.min(BLOCK_SIZE, size - offset) };
      }
      this.#file++;
      this.#offset = 0;
    }
    return undefined;
  }

  /** @param {number} file @param {number} offset @param {Uint8Array} bytes @param {Uint8Array} digest */
  #pack(file, offset, bytes, digest) {
    const have = this.#have.get(file);
    this.#have.delete(file);
    if (have) {
      // If it is not the same file after all, it begins anew.
      if (!areEqual(unhex(/** @type {string} */ (have.at(-1))), digest)) return;
      for (const text of have) this.#fileDigest.update(unhex(text));
    } else if (bytes.length) {
      this.#packer.add(DATA, file, offset, bytes);
      this.#packer.add(BLOCK_END, file, offset, digest);
      this.#fileDigest.update(digest);
      this.#packedBytes += bytes.length;
    }
    const end = offset + bytes.length;
    this.#offset = end;
    if (end < this.#manifest.rows[file].size) return;
    const whole = this.#fileDigest.digest();
    this.#packer.add(FILE_END, file, end, whole);
    this.#digests.set(whole, file * DIGEST_SIZE);
    this.#fileDigest = new Sha256();
    this.#file++;
    this.#offset = 0;
  }
}
