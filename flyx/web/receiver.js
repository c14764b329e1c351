/**
 * The receiving end of a transfer over one connection. No I/O: a driver carries out its operations one after
 * another, verifies the blocks in them, and says what came of each.
 *
 * Inputs besides those of Session: receiveData, accept, operationDone. Drains: nextControl, nextOperation,
 * nextEvent. At most WINDOW bytes are under way, in the network or here.
 *
 * @module
 */

import { hex } from "./bytes.js";
import { protocolError } from "./errors.js";
import { DATA, parseFramesUntrusted } from "./frames.js";
import { FileInbox } from "./inbox.js";
import { isKnown, NOT_NEEDED, UNREADABLE } from "./left_out.js";
import { BLOCK_SIZE } from "./manifest.js";
import { ManifestInbox } from "./manifest_inbox.js";
import { acceptMessages, savedMessages } from "./messages.js";
import { Session } from "./session.js";

/** @typedef {import("./inbox.js").Operation} Operation */
/** @typedef {import("./arrivals.js").Arrivals} Arrivals */

/** Data bytes that the sender may have under way. */
export const WINDOW = 16 * BLOCK_SIZE;

/** Credit is granted anew when it, or what is verified, has grown by this much. */
const CREDIT_STEP = WINDOW / 8;

/**
 * Bytes of credit that an operation takes while it waits, besides the data in it: a hole, or the end of a
 * file, is of few bytes on the wire, and more in memory.
 */
const OPERATION_COST = 256;

/** Most files of which it is not told yet that they are saved. */
const SAVED_AT_ONCE = 500;

/** The state machine of the receiving end. */
export class Receiver extends Session {
  #manifest = new ManifestInbox();
  /** @type {"listing" | "asking" | "receiving" | "finishing" | "confirming"} */
  #state = "listing";
  /** @type {string | null} */
  #expected;
  /** Set when it is accepted. @type {Arrivals | null} */
  arrivals = null;
  /** @type {FileInbox | null} */
  #inbox = null;
  /** Messages that are made one by one. @type {Iterator<any>} */
  #telling = [].values();
  /** @type {Operation[]} */
  #operations = [];
  /** One has been handed out and not answered. */
  #isBusy = false;
  /** @type {number[]} */
  #saved = [];
  #received = 0;
  #held = 0;
  #granted = 0;
  #writtenTold = 0;

  /**
   * @param {number} now
   * @param {string | null} expected Id of the manifest that was accepted over an earlier connection: no other
   *     is taken.
   */
  constructor(now, expected) {
    super("sender", now);
    this.#expected = expected;
  }

  /**
   * Take one message of the data channel; nothing of it is needed afterwards.
   *
   * @param {string | ArrayBuffer} message
   * @param {number} now
   */
  receiveData(message, now) {
    if (this.ended) return;
    this.heard(now);
    this.guarded(() => {
      if (!this.#inbox) throw protocolError("data before anything was accepted");
      this.#received += typeof message === "string" ? message.length : message.byteLength;
      if (this.#received > this.#granted) throw protocolError("more data than there was credit for");
      for (const frame of parseFramesUntrusted(message)) {
        if (frame.kind === DATA) this.#held += frame.payload.length;
        this.#operations.push(...this.#inbox.take(frame));
      }
    });
  }

  /** Accept what is offered, and go on from what is here: the answer to the event `offered`.
   *
   * @param {Arrivals} arrivals
   */
  accept(arrivals) {
    if (this.ended) return;
    this.arrivals = arrivals;
    this.#inbox = new FileInbox(arrivals);
    this.#state = "receiving";
    const { rows, leftOut } = arrivals.offered;
    this.#telling = acceptMessages(rows.length, arrivals.found(), leftOut, arrivals.streamOffset);
    this.#grantCredit();
    this.#proceed();
  }

  /** Return what is to be done next; undefined while an earlier one is unanswered. */
  nextOperation() {
    if (this.#isBusy || this.ended) return undefined;
    const operation = this.#state === "finishing" ? { do: "end" } : this.#operations.shift();
    this.#isBusy = operation !== undefined;
    return operation;
  }

  /** The last operation has been carried out, and what it did is in the arrivals. @param {any} operation */
  operationDone(operation) {
    this.#isBusy = false;
    if (operation.do === "write") {
      if (operation.digest) this.#held -= operation.length;
    } else if (operation.do === "finish") {
      this.#saved.push(operation.file);
    } else if (operation.do === "discard") {
      this.#held -= operation.dropped;
      // What we do not need is for us to say, and no failure.
      const code = isKnown(operation.code) && !NOT_NEEDED.has(operation.code) ? operation.code : UNREADABLE;
      this.emit({ is: "lost", file: operation.file, code });
    } else if (operation.do === "end" && !this.ended) {
      this.#confirm();
    }
    if (this.ended) return;
    if (this.#saved.length >= SAVED_AT_ONCE || !this.#operations.length) this.#tellSaved();
    this.#grantCredit();
    this.#proceed();
  }

  nextControl() {
    if (!this.ended) {
      const { value } = this.#telling.next();
      if (value) return JSON.stringify(value);
    }
    return super.nextControl();
  }

  /** File bytes that will be here in the end; null of a stream. */
  get expectedBytes() {
    const arrivals = this.arrivals;
    if (!arrivals || arrivals.isStream) return null;
    return arrivals.offered.manifest.bytes - arrivals.missingBytes;
  }

  /** @param {any} message */
  receive(message) {
    if (message.type === "done" && this.#state === "confirming") {
      this.#succeed();
      return;
    }
    if (this.#state !== "listing") throw protocolError(`${message.type} out of place`);
    if (message.type === "manifest_start" && this.#expected && message.manifest_id !== this.#expected) {
      throw protocolError("it offers other files than before");
    }
    const offered = this.#manifest.take(message);
    if (offered) {
      this.#state = "asking";
      this.emit({ is: "offered", offered });
    }
  }

  /** @param {import("./errors.js").FlyxError} error */
  losePath(error) {
    // Everything is verified and in place: that the sender's last word is lost changes nothing.
    if (this.#state === "confirming" && !this.ended) this.#succeed();
    else super.losePath(error);
  }

  #tellSaved() {
    this.outgoing.push(...savedMessages(this.#saved));
    this.#saved = [];
  }

  #proceed() {
    if (this.#state === "receiving" && this.arrivals?.isComplete && !this.#operations.length) {
      this.#tellSaved();
      this.#state = "finishing";
    }
  }

  #confirm() {
    const { files, bytes } = /** @type {Arrivals} */ (this.arrivals);
    this.#state = "confirming";
    this.outgoing.push({ type: "complete", files, bytes, sha256: this.#digest });
  }

  get #digest() {
    return hex(/** @type {Arrivals} */ (this.arrivals).digest());
  }

  #succeed() {
    const { files, bytes } = /** @type {Arrivals} */ (this.arrivals);
    this.ended = true;
    this.emit({ is: "received", files, bytes, digest: this.#digest });
  }

  #grantCredit() {
    const arrivals = this.arrivals;
    if (!arrivals) return;
    const waiting = this.#held + (this.#operations.length + Number(this.#isBusy)) * OPERATION_COST;
    const granted = Math.max(this.#granted, this.#received - waiting + WINDOW);
    const written = arrivals.verified;
    const news = Math.abs(written - this.#writtenTold);
    // The sender keeps all of a stream that it does not know to be verified.
    const isNews = news >= CREDIT_STEP || (news > 0 && arrivals.isStream);
    if (granted < this.#granted + CREDIT_STEP && !isNews) return;
    this.#granted = granted;
    this.#writtenTold = written;
    this.outgoing.push({ type: "credit", bytes: granted, written });
  }
}
