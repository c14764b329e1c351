/**
 * Sending: one room, one peer connection for each receiver, each at its own pace (flyx/client/send.py).
 *
 * @module
 */

import { checkOwnWords, drawWords, formatCode, invitationUrl, passwordOf } from "./codes.js";
import * as errors from "./errors.js";
import { manifestOf, manifestOfText } from "./listing.js";
import { MAX_TRIES, Tries } from "./pairing.js";
import { Receiver } from "./serving.js";
import { Signaling } from "./signaling.js";
import { untilStopped } from "./stopping.js";
import { deferred, now, RECONNECT_TIME, sleep, timeLimit } from "./timing.js";

/** @typedef {import("./flyx.js").SendOptions} SendOptions */
/** @typedef {import("./flyx.js").Done} Done */
/** @typedef {import("./listing.js").SentManifest} SentManifest */
/** @typedef {import("./pairing.js").Code} Code */

/**
 * Receivers at a time that have not proved themselves: strangers cannot take every place, nor much memory.
 */
const MAX_UNPAIRED = 8;

/** Seconds for receivers that have everything to leave the room before we do. */
const DRAIN_TIMEOUT = 1;

/** Errors after which no more receivers are taken. */
const CLOSES_ROOM = new Set(["too_many_tries", "too_many_unfinished", "connection_mismatch"]);

/** Send to as many receivers as asked for. @param {SendOptions} options @returns {Promise<Done[]>} */
export function send(options) {
  return untilStopped(options, async (signal) => {
    const manifest =
      options.text === undefined ? manifestOf(options.entries ?? []) : manifestOfText(options.text);
    const code = makeCode(options);
    const { server, apiToken, WebSocket } = options;
    const hold = options.reconnect ?? RECONNECT_TIME;
    const place = { server, roomId: null, role: /** @type {const} */ ("sender"), hold, apiToken, WebSocket };
    const signaling = await Signaling.enter(place, signal);
    tellManifest(options.on, manifest);
    const { roomId } = signaling;
    const { password } = code;
    const told = {
      code: formatCode(roomId, password),
      words: password,
      url: invitationUrl(server, roomId, password),
    };
    options.on({ event: "room", room_id: roomId, server, ...told });
    return await new SendSession(options, signaling, manifest, code, signal).run();
  });
}

/** What receivers have to know. @param {SendOptions} options @returns {Code} */
function makeCode({ words, open }) {
  if (open) return { kind: "open", words: 0, password: "" };
  if (words !== undefined) return { kind: "own", words: 0, password: passwordOf(checkOwnWords(words)) };
  const drawn = drawWords();
  return { kind: "words", words: drawn.length, password: passwordOf(drawn) };
}

/** @param {SendOptions["on"]} on @param {SentManifest} manifest */
function tellManifest(on, { id, content, rows, roots, files, bytes }) {
  const entries = rows.map(({ path, kind, size, mtimeUs }, index) => {
    return { index, kind, path, told: path, size, mtime: mtimeUs / 1000 };
  });
  const manifest = { id, content, entries, roots, files, bytes, absent: [] };
  on({ event: "manifest", manifest, manifest_id: id, content, files, bytes });
}

/** Serves the receivers of one room. */
export class SendSession {
  #options;
  #signaling;
  #signal;
  #wanted;
  /** In the room, by client id. @type {Map<string, Receiver>} */
  #present = new Map();
  /** Those that wait for a connection to be begun, and those that have paired and wait for a place. */
  #waiting = /** @type {Receiver[]} */ ([]);
  #held = /** @type {Receiver[]} */ ([]);
  #connecting = new Set();
  #serving = new Set();
  /** All whose task is not over. @type {Set<Promise<void>>} */
  #tasks = new Set();
  /** @type {Done[]} */
  #served = [];
  #arrivals = 0;
  /** Why no more receivers are taken. @type {errors.FlyxError | null} */
  #closed = null;
  /** The room is no more: a connection that is lost stays lost. @type {errors.FlyxError | null} */
  roomGone = null;
  #changed = deferred();
  #ending = new AbortController();
  tries = new Tries();
  /** @type {Map<string, import("./pairing.js").Session>} */
  sessions = new Map();

  /**
   * @param {SendOptions} options
   * @param {Signaling} signaling
   * @param {SentManifest} manifest
   * @param {Code} code
   * @param {AbortSignal} signal
   */
  constructor(options, signaling, manifest, code, signal) {
    this.#options = options;
    this.#signaling = signaling;
    this.#signal = signal;
    this.#wanted = options.receivers ?? 1;
    this.manifest = manifest;
    this.code = code;
    this.reconnect = options.reconnect ?? RECONNECT_TIME;
    /** Ends what is under way for any receiver. */
    this.signal = AbortSignal.any([signal, this.#ending.signal]);
  }

  get on() {
    return this.#options.on;
  }

  get signaling() {
    return this.#signaling;
  }

  get RTCPeerConnection() {
    return this.#options.RTCPeerConnection;
  }

  /** Serve until enough receivers have everything. */
  async run() {
    this.#listen();
    try {
      while (!this.#isComplete) {
        this.#signal.throwIfAborted();
        if (this.#closed && !this.#isUnderWay(this.#closed)) throw this.#closed;
        this.#fillPlaces();
        this.#changed = deferred();
        await timeLimit(this.#changed.promise, null, null, this.#signal);
      }
      await this.#drain();
      return this.#served;
    } finally {
      this.#ending.abort(errors.interrupted("it was stopped"));
      await Promise.all(this.#tasks);
      await this.#signaling.leave(this.#signal.aborted ? { reason: "the sender stopped" } : {});
    }
  }

  get #isComplete() {
    return this.#wanted > 0 && this.#served.length >= this.#wanted;
  }

  /** Whether receivers are served still, or may come to be. @param {errors.FlyxError} closed */
  #isUnderWay(closed) {
    return (
      this.#serving.size > 0 ||
      this.#held.length > 0 ||
      (this.#connecting.size > 0 && !CLOSES_ROOM.has(closed.code))
    );
  }

  /** Let the receivers that have everything leave first: the room ends with us. */
  async #drain() {
    const until = now() + DRAIN_TIMEOUT;
    while ([...this.#present.values()].some(({ isServed }) => isServed) && now() < until && !this.roomGone) {
      this.#changed = deferred();
      await Promise.race([this.#changed.promise, sleep(until - now())]);
    }
  }

  wake() {
    this.#changed.resolve();
  }

  async #listen() {
    try {
      for (;;) {
        this.#react(await this.#signaling.next());
        this.wake();
      }
    } catch (error) {
      this.roomGone = errors.asFlyxError(error);
      for (const receiver of this.#present.values()) receiver.roomGone(this.roomGone);
      this.#close(this.roomGone);
      this.wake();
    }
  }

  /** @param {any} message */
  #react(message) {
    const receiver = this.#present.get(message.client_id);
    switch (message.type) {
      case "interrupted":
        this.on({
          event: "notice",
          message: `The server is out of reach (${message.reason}). Trying to get back to it.`,
        });
        break;
      case "restored":
        this.on({ event: "notice", message: "The server is there again." });
        if (!message.recovered) this.#resync();
        break;
      case "join":
        this.#arrived(message);
        break;
      case "answer":
        receiver?.connection?.acceptAnswer(message.sdp);
        break;
      case "ice_candidate":
        receiver?.connection?.addCandidate(message.candidate);
        break;
      case "disconnect":
        if (message.away) receiver?.doubt();
        else if (receiver) this.#left(receiver);
        break;
    }
  }

  /** @param {any} message */
  #arrived({ client_id: clientId, recovered }) {
    const known = this.#present.get(clientId);
    // It waits, or is to have what we told it go on.
    if (known && (this.#waiting.includes(known) || known.returned(recovered))) return;
    // What we told it on the way to a connection may be lost: we begin anew.
    if (known) this.#left(known);
    if (this.#closed) return;
    const receiver = new Receiver(this, clientId, ++this.#arrivals);
    this.#present.set(clientId, receiver);
    this.#waiting.push(receiver);
    this.on({ event: "peer", peer: receiver.number, state: "joined" });
  }

  /** Forget the receivers that left while we did not hear of it; those that are here will be told of. */
  #resync() {
    const there = new Set(this.#signaling.joined.peers.map((/** @type {any} */ peer) => peer.client_id));
    for (const [clientId, receiver] of this.#present) if (!there.has(clientId)) this.#left(receiver);
  }

  /** @param {Receiver} receiver */
  #left(receiver) {
    this.#present.delete(receiver.clientId);
    const at = this.#waiting.indexOf(receiver);
    if (at >= 0) {
      this.#waiting.splice(at, 1);
      this.#tellFailed(receiver, errors.interrupted("the receiver left"));
    } else {
      receiver.leave();
    }
  }

  #fillPlaces() {
    while (this.#held.length && this.#hasPlace) this.#serve(/** @type {Receiver} */ (this.#held.shift()));
    while (!this.#closed && this.#waiting.length && this.#connecting.size < MAX_UNPAIRED) {
      const receiver = /** @type {Receiver} */ (this.#waiting.shift());
      this.#connecting.add(receiver);
      const task = this.#deliver(receiver).finally(() => this.#tasks.delete(task));
      this.#tasks.add(task);
    }
  }

  get #hasPlace() {
    return this.#wanted === 0 || this.#serving.size + this.#served.length < this.#wanted;
  }

  /** A receiver has paired: its turn comes when there is a place. @param {Receiver} receiver */
  admit(receiver) {
    this.#connecting.delete(receiver);
    this.#signaling.tellPaired(receiver.clientId);
    if (this.#hasPlace) this.#serve(receiver);
    else this.#held.push(receiver);
    this.wake();
  }

  /** @param {Receiver} receiver */
  #serve(receiver) {
    this.#serving.add(receiver);
    receiver.release();
  }

  /** A receiver keeps no place while its connection is made anew. @param {Receiver} receiver */
  lost(receiver) {
    this.#serving.delete(receiver);
    this.#held = this.#held.filter((other) => other !== receiver);
    this.wake();
  }

  /** @param {Receiver} receiver */
  async #deliver(receiver) {
    try {
      const done = await receiver.run();
      receiver.isServed = true;
      this.#served.push(done);
      this.on({ event: "peer", peer: receiver.number, state: "done" });
    } catch (error) {
      const failure = errors.asFlyxError(error);
      this.#tellFailed(receiver, failure);
      if (failure.code === "wrong_words") this.#noticeGuess();
      if (CLOSES_ROOM.has(failure.code)) this.#close(failure);
    } finally {
      this.#connecting.delete(receiver);
      this.lost(receiver);
    }
  }

  /** @param {Receiver} receiver @param {errors.FlyxError} error */
  #tellFailed(receiver, { code, message }) {
    this.on({ event: "peer", peer: receiver.number, state: "failed", code, message });
  }

  #noticeGuess() {
    const left = MAX_TRIES - this.tries.failed;
    const tries = left === 1 ? "1 more wrong try" : `${left} more wrong tries`;
    this.on({ event: "notice", message: `Wrong words were given. After ${tries} the code stops working.` });
  }

  /** Take no more receivers. Those that have paired go on. @param {errors.FlyxError} error */
  #close(error) {
    if (this.#closed) return;
    this.#closed = error;
    for (const receiver of this.#waiting.splice(0)) this.#tellFailed(receiver, error);
    if (this.#serving.size) {
      this.on({
        event: "notice",
        message: `${error.message.replace(/\.$/, "")}. What is being sent goes on.`,
      });
    }
  }
}
