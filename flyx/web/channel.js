/**
 * A data channel as a transfer uses it: what comes early is kept, what goes waits for room.
 *
 * @module
 */

import { free } from "./bytes.js";
import { protocolError } from "./errors.js";

/** What is kept on a channel that nobody listens to; a peer that sends more has not waited its turn. */
const MAX_EARLY_MESSAGES = 64;
const MAX_EARLY_BYTES = 4 << 20;

/**
 * Bytes in a channel's send buffer above which it is not writable, and at which it becomes so again.
 * Chromium refuses what exceeds 16 MiB; Firefox takes whatever it is given.
 */
const BUFFERED_HIGH = 1 << 20;
const BUFFERED_LOW = BUFFERED_HIGH / 2;

/**
 * Who hears of what happens on a channel.
 *
 * @typedef {object} Listener
 * @property {(message: string | ArrayBuffer) => void} message A buffer is empty afterwards.
 * @property {() => void} [writable] The send buffer has drained.
 * @property {() => void} [closed] No more messages will come or go.
 */

/**
 * Both channels of a transfer, and bytes of the largest message that the peer accepts.
 *
 * @typedef {{ control: Channel, data: Channel, maxMessageSize: number }} Channels
 */

/**
 * What a Channel needs of an RTCDataChannel.
 *
 * @typedef {Pick<RTCDataChannel, "readyState" | "bufferedAmount" | "bufferedAmountLowThreshold" |
 *     "binaryType" | "send" | "close" | "addEventListener">} RawChannel
 */

/** One of the two. */
export class Channel {
  #raw;
  /** @type {Listener | null} */
  #listener = null;
  /** @type {(string | ArrayBuffer)[]} */
  #early = [];
  #earlySize = 0;
  /** @type {(() => void)[]} */
  #whenClosed = [];
  closed = false;
  /**
   * How the peer broke the protocol, if that is why it closed.
   *
   * @type {import("./errors.js").FlyxError | null}
   */
  violation = null;

  /** @param {RawChannel} raw */
  constructor(raw) {
    this.#raw = raw;
    raw.binaryType = "arraybuffer";
    raw.bufferedAmountLowThreshold = BUFFERED_LOW;
    raw.addEventListener("message", (event) => this.#receive(/** @type {MessageEvent} */ (event).data));
    raw.addEventListener("bufferedamountlow", () => this.#listener?.writable?.());
    // An error is followed by close; bufferedamountlow does not come any more.
    raw.addEventListener("close", () => this.markClosed());
  }

  /** Whether more should be sent now. */
  get writable() {
    return this.#raw.bufferedAmount < BUFFERED_HIGH;
  }

  /**
   * Deliver everything to this listener from now on, what came before included.
   *
   * @param {Listener} listener
   */
  listen(listener) {
    this.#listener = listener;
    while (this.#listener === listener && this.#early.length) {
      const message = /** @type {string | ArrayBuffer} */ (this.#early.shift());
      this.#earlySize -= sizeOf(message);
      this.#deliver(message, listener);
    }
    if (this.closed && this.#listener === listener) listener.closed?.();
  }

  /** Deliver nothing more: what comes from now on is kept for the next listener. */
  release() {
    this.#listener = null;
  }

  /**
   * Queue one message; on a closed channel it is dropped, as it would be on the way.
   *
   * @param {string | Uint8Array} message The buffer of bytes is empty afterwards.
   */
  send(message) {
    // A closed channel throws in Chromium, and is silent in Firefox.
    if (this.#raw.readyState === "open") this.#raw.send(/** @type {any} */ (message));
    if (typeof message !== "string") free(/** @type {ArrayBuffer} */ (message.buffer));
  }

  close() {
    this.#raw.close();
  }

  /** The channel, or the connection under it, has closed. */
  markClosed() {
    if (this.closed) return;
    this.closed = true;
    for (const tell of this.#whenClosed) tell();
    this.#listener?.closed?.();
  }

  /** Wait until it is closed, but not longer. @param {number} seconds */
  whenClosed(seconds) {
    return new Promise((/** @type {(value: void) => void} */ resolve) => {
      if (this.closed) return resolve();
      this.#whenClosed.push(resolve);
      setTimeout(resolve, seconds * 1000);
    });
  }

  /** @param {string | ArrayBuffer} message @param {Listener} listener */
  #deliver(message, listener) {
    listener.message(message);
    if (typeof message !== "string") free(message);
  }

  /** @param {string | ArrayBuffer} message */
  #receive(message) {
    if (this.closed) return;
    if (this.#listener) {
      this.#deliver(message, this.#listener);
      return;
    }
    this.#earlySize += sizeOf(message);
    if (this.#early.length >= MAX_EARLY_MESSAGES || this.#earlySize > MAX_EARLY_BYTES) {
      this.violation = protocolError("messages before their time");
      this.close();
    } else {
      this.#early.push(message);
    }
  }
}

/** @param {string | ArrayBuffer} message */
const sizeOf = (message) => (typeof message === "string" ? message.length : message.byteLength);
