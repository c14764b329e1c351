/**
 * What both ends of a transfer share: heartbeat, giving up, and the queues that a driver drains, as
 * flyx/transfer/session.py has them. No I/O: `now` is seconds that only grow.
 *
 * Input methods change the state: receiveControl, handleTimeout, cancel, and so on. After each, drain
 * nextControl and nextEvent; then ask nextTimeout.
 *
 * @module
 */

import {
  asFlyxError,
  connectionLost,
  declined,
  FlyxError,
  interrupted,
  pairingFailed,
  refused,
  streamBegun,
} from "./errors.js";
import { parseControlUntrusted } from "./messages.js";

/** Seconds between our pings. */
const PING_INTERVAL = 5;

/**
 * Seconds without any message after which the path counts as lost. Chromium calls a connection failed
 * after 15 s, which may well come back; and never closes its channels.
 */
const SILENCE_LIMIT = 20;

/**
 * Seconds without any message after which that is told: pings come every PING_INTERVAL, and take their time.
 */
const SILENCE_TOLD = 7;

/** Seconds as SILENCE_LIMIT, when the signaling server says that the other side has gone. */
const GONE_LIMIT = 5;

/**
 * The same, when there is reason to think that the path is gone: at least CHECK_LIMIT, or so many round trips.
 */
const CHECK_LIMIT = 0.75;
const CHECK_ROUND_TRIPS = 4;

/**
 * Seconds that handleTimeout() is called too late when we stood still. A hidden page has its timers once a
 * second.
 */
const LATE = 3;

/**
 * Seconds after which the other side may have lost patience with us, and in which a loss is explained by
 * that.
 */
const LONG_STANDSTILL = SILENCE_LIMIT - PING_INTERVAL;
const STANDSTILL_COUNTS = 10;

/** Characters of the sentence in a cancel. */
const MAX_REASON = 1000;

const REFUSALS = new Set([
  "refused",
  "consent_needed",
  "nothing_wanted",
  "unverified_sender",
  "destination_exists",
  "unsafe_name",
  "no_space",
]);

/** The common half of Sender and Receiver. */
export class Session {
  /** Whether the transfer is over, with success or without. */
  ended = false;
  /** Ours is the last message: the other side closes the connection once it has read it. */
  hasLastWord = false;
  /** @type {any[]} */
  outgoing = [];
  /** @type {any[]} */
  #events = [];
  #silenceLimit = SILENCE_LIMIT;
  #heardAt;
  /** It was told that nothing is heard. */
  #isSilent = false;
  /** Why the path is being checked. @type {string | null} */
  #suspicion = null;
  #deadline;
  #standstill = 0;
  #standstillCounts;
  /** @type {number | null} */
  #roundTrip = null;
  #nextPing;
  #pingToken = 0;
  /** @type {number | null} */
  #pingSent = null;
  #pongWaiting = false;

  /** @param {"sender" | "receiver"} peer What the other side is. @param {number} now */
  constructor(peer, now) {
    this.peer = peer;
    this.#heardAt = now;
    this.#deadline = now + SILENCE_LIMIT;
    this.#standstillCounts = now;
    this.#nextPing = now;
  }

  /**
   * Take one message of the control channel. A bad one ends the transfer.
   *
   * @param {unknown} message
   * @param {number} now
   */
  receiveControl(message, now) {
    if (this.ended) return;
    this.heard(now);
    this.guarded(() => this.#dispatch(parseControlUntrusted(message, this.peer), now));
  }

  /** Do this; what it throws ends the transfer. @param {() => void} work */
  guarded(work) {
    try {
      work();
    } catch (error) {
      this.cancel(asFlyxError(error));
    }
  }

  /** Do what is due at nextTimeout(). @param {number} now */
  handleTimeout(now) {
    if (this.ended) return;
    this.#noticeStandstill(now);
    if (now >= this.#deadline) {
      const silence = `nothing was heard from the ${this.peer} for ${Math.round(this.#silenceLimit)} s`;
      this.losePath(connectionLost(this.#suspicion ?? silence));
      return;
    }
    if (now >= this.#silenceDue) {
      this.#isSilent = true;
      this.emit({ is: "silent", seconds: Math.round(now - this.#heardAt) });
    }
    if (now >= this.#nextPing) {
      this.#nextPing = now + PING_INTERVAL;
      if (this.#pingSent === null) {
        this.#pingToken++;
        this.#pingSent = now;
      }
      this.outgoing.push({ type: "ping", token: this.#pingToken });
    }
  }

  /** When handleTimeout() is due; null when it is over. */
  nextTimeout() {
    return this.ended ? null : Math.min(this.#deadline, this.#nextPing, this.#silenceDue);
  }

  /** When it is to be told that nothing is heard. */
  get #silenceDue() {
    return this.#isSilent ? Infinity : this.#heardAt + SILENCE_TOLD;
  }

  /** The server says that the other side has left: believe it unless it answers. @param {number} now */
  peerGone(now) {
    this.#expectAnswer(now, GONE_LIMIT, null);
  }

  /**
   * There is reason to think that the path is gone: a clause.
   *
   * @param {number} now
   * @param {string} suspicion
   */
  checkPath(now, suspicion) {
    const patience = this.#roundTrip === null ? GONE_LIMIT : CHECK_ROUND_TRIPS * this.#roundTrip;
    this.#expectAnswer(now, Math.min(GONE_LIMIT, Math.max(CHECK_LIMIT, patience)), suspicion);
  }

  /** A data channel has closed under us. @param {number} now */
  channelClosed(now) {
    this.#noticeStandstill(now);
    this.losePath(connectionLost(this.#whyLost(now) ?? `the connection to the ${this.peer} was lost`));
  }

  /** Give up for this reason and tell the other side. @param {FlyxError} error */
  cancel(error) {
    if (this.ended) return;
    // What has not left yet no longer matters.
    this.outgoing = [];
    this.hasLastWord = true;
    const message = [...error.forPeer].slice(0, MAX_REASON).join("");
    this.outgoing.push({ type: "cancel", code: error.code, message });
    this.fail(error);
  }

  /**
   * Return the next message for the control channel; undefined if there is none.
   *
   * @returns {string | undefined}
   */
  nextControl() {
    const message = this.outgoing.shift();
    if (message?.type === "pong") this.#pongWaiting = false;
    return message && JSON.stringify(message);
  }

  /** Return what has happened, oldest first. */
  nextEvent() {
    return this.#events.shift();
  }

  /** @param {{ is: string, [field: string]: any }} event */
  emit(event) {
    this.#events.push(event);
  }

  /** @param {number} now */
  heard(now) {
    this.#deadline = now + this.#silenceLimit;
    this.#heardAt = now;
    if (!this.#isSilent) return;
    this.#isSilent = false;
    this.emit({ is: "heard" });
  }

  /** @param {FlyxError} error */
  fail(error) {
    if (this.ended) return;
    this.ended = true;
    this.emit({ is: "failed", error });
  }

  /** The path to the other side is lost. @param {FlyxError} error */
  losePath(error) {
    this.fail(error);
  }

  /** Handle a message of the subclass's own. @param {any} message @param {number} _now */
  receive(message, _now) {
    throw new TypeError(`${message.type} has no meaning`);
  }

  /** @param {number} now @param {number} limit @param {string | null} suspicion */
  #expectAnswer(now, limit, suspicion) {
    if (this.ended || limit >= this.#silenceLimit) return;
    this.#silenceLimit = limit;
    this.#suspicion = suspicion;
    this.#deadline = Math.min(this.#deadline, now + limit);
    // The next ping has a new token, and none that is on its way counts.
    this.#pingSent = null;
    this.#nextPing = now;
  }

  /** @param {number} now */
  #noticeStandstill(now) {
    const late = now - Math.min(this.#deadline, this.#nextPing);
    if (this.ended || late <= LATE) return;
    this.#standstill = Math.max(late, now < this.#standstillCounts ? this.#standstill : 0);
    this.#standstillCounts = now + STANDSTILL_COUNTS;
    this.#deadline = Math.max(this.#deadline, now + GONE_LIMIT);
    this.#nextPing = now;
    const why = this.#whyLost(now);
    if (why) this.checkPath(now, why);
  }

  /** @param {number} now */
  #whyLost(now) {
    if (now >= this.#standstillCounts || this.#standstill < LONG_STANDSTILL) return null;
    return `this computer slept, or this page was stopped, for ${Math.round(this.#standstill)} s`;
  }

  /** @param {any} message @param {number} now */
  #dispatch(message, now) {
    if (message.type === "cancel") {
      this.fail(errorOfCancel(message, this.peer));
    } else if (message.type === "reject") {
      this.fail(pairingFailed(`the ${this.peer}'s code has words, and this one has none`));
    } else if (message.type === "ping") {
      if (this.#pongWaiting) return;
      this.#pongWaiting = true;
      this.outgoing.push({ type: "pong", token: message.token });
    } else if (message.type === "pong") {
      if (message.token !== this.#pingToken || this.#pingSent === null) return;
      this.#roundTrip = now - this.#pingSent;
      this.emit({ is: "roundTrip", seconds: this.#roundTrip });
      this.#pingSent = null;
      this.#silenceLimit = SILENCE_LIMIT;
      this.#suspicion = null;
      this.heard(now);
    } else {
      this.receive(message, now);
    }
  }
}

/** Return the error that a cancel of the other side is for us. @param {any} cancel @param {string} peer */
function errorOfCancel({ code, message }, peer) {
  if (code === "interrupted") return interrupted(`the ${peer} stopped it`);
  if (code === "declined") return declined();
  if (code === "stream_begun") return streamBegun();
  if (REFUSALS.has(code)) return refused(message);
  if (code === "storage_error") {
    return interrupted(`the ${peer} could not ${peer === "receiver" ? "write" : "read"} where it wanted to`);
  }
  return interrupted(`the ${peer} reported: ${message}`);
}
