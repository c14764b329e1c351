/**
 * The frames of the data channel, as flyx/transfer/messages.py describes them.
 *
 * @module
 */

import { protocolError } from "./errors.js";
import { DIGEST_SIZE } from "./sha256.js";

/** Bytes of a message of the data channel, even if the peer accepts more: longer ones are no faster. */
const MAX_DATA_SIZE = 262_144;

/** Bytes in a DATA frame that is not the last of its block. */
export const SHORTEST_DATA = 1024;

/** Kind, three reserved bytes, file index, payload length, offset; network byte order. */
const HEADER_SIZE = 20;

export const DATA = 1;
export const BLOCK_END = 2;
export const FILE_END = 3;
export const FILE_FAILED = 4;
export const HOLE = 5;

/**
 * By kind: the least and the most bytes of its payload. PACKED (6) is for those who say that they can unpack
 * it.
 *
 * @type {Record<number, [number, number]>}
 */
const LENGTHS = {
  [DATA]: [1, 2 ** 30],
  [BLOCK_END]: [DIGEST_SIZE, DIGEST_SIZE],
  [FILE_END]: [DIGEST_SIZE, DIGEST_SIZE],
  [FILE_FAILED]: [1, 64],
  [HOLE]: [0, 0],
};

/**
 * One frame; the payload is a view into the message that it came in.
 *
 * @typedef {{ kind: number, file: number, offset: number, payload: Uint8Array }} Frame
 */

/**
 * Split one message of the data channel into its frames.
 *
 * @param {string | ArrayBuffer} message
 * @returns {Frame[]}
 * @throws {FlyxError} `protocol_error`: it is text or empty, or a frame is cut short, unknown or of
 *     impossible length.
 */
export function parseFramesUntrusted(message) {
  if (typeof message === "string" || !message.byteLength)
    throw protocolError("a data message without frames");
  const view = new DataView(message);
  const frames = [];
  for (let position = 0; position < message.byteLength;) {
    const start = position + HEADER_SIZE;
    if (start > message.byteLength) throw protocolError("a frame is cut short");
    const kind = view.getUint8(position);
    const file = view.getUint32(position + 4);
    const length = view.getUint32(position + 8);
    const offset = Number(view.getBigUint64(position + 12));
    if (!Object.hasOwn(LENGTHS, kind)) throw protocolError(`unknown frame kind ${kind}`);
    const [shortest, longest] = LENGTHS[kind];
    position = start + length;
    if (position > message.byteLength || length < shortest || length > longest) {
      throw protocolError(`a frame of impossible length ${length}`);
    }
    frames.push({ kind, file, offset, payload: new Uint8Array(message, start, length) });
  }
  return frames;
}

/** Packs frames into messages, so that many small files share one and large blocks fill each. */
export class FramePacker {
  #limit;
  /** The memory of one message; what is pending is at its beginning. */
  #message;
  #pendingSize = 0;
  /** @type {Uint8Array[]} */
  messages = [];
  /** Bytes in `messages` and pending, headers included. */
  size = 0;

  /** @param {number} maxMessageSize Bytes in a message that the peer accepts. */
  constructor(maxMessageSize) {
    this.#limit = Math.min(maxMessageSize, MAX_DATA_SIZE);
    this.#message = new Uint8Array(this.#limit);
  }

  /**
   * Make no message longer than this from now on: at least SHORTEST_DATA with its header.
   *
   * @param {number} size
   */
  keepTo(size) {
    this.#limit = Math.min(this.#limit, size);
  }

  /**
   * Append one frame, whose payload is copied; DATA of any length is spread over as many as it needs.
   *
   * @param {number} kind
   * @param {number} file
   * @param {number} offset
   * @param {Uint8Array} payload
   */
  add(kind, file, offset, payload) {
    let rest = payload;
    let at = offset;
    while (rest.length > this.#room && (kind === DATA || this.#pendingSize)) {
      const room = this.#room;
      if (kind !== DATA || room < SHORTEST_DATA) {
        this.flush();
        continue;
      }
      this.#append(kind, file, at, rest.subarray(0, room));
      rest = rest.subarray(room);
      at += room;
    }
    if (rest.length || kind !== DATA) this.#append(kind, file, at, rest);
  }

  /** Make what is pending a message. */
  flush() {
    if (!this.#pendingSize) return;
    this.messages.push(this.#message.slice(0, this.#pendingSize));
    this.#pendingSize = 0;
  }

  /** Take the oldest message; there is one. */
  pop() {
    const message = /** @type {Uint8Array} */ (this.messages.shift());
    this.size -= message.length;
    return message;
  }

  get #room() {
    return this.#limit - this.#pendingSize - HEADER_SIZE;
  }

  /** @param {number} kind @param {number} file @param {number} offset @param {Uint8Array} payload */
  #append(kind, file, offset, payload) {
    const header = new DataView(this.#message.buffer, this.#pendingSize, HEADER_SIZE);
    header.setUint32(0, kind << 24);
    header.setUint32(4, file);
    header.setUint32(8, payload.length);
    header.setBigUint64(12, BigInt(offset));
    this.#message.set(payload, this.#pendingSize + HEADER_SIZE);
    this.#pendingSize += HEADER_SIZE + payload.length;
    this.size += HEADER_SIZE + payload.length;
  }
}
