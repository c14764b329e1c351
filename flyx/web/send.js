/**
 * Sending: one room, one peer connection for each receiver, each at its own pace (flyx/client/send.py).
 *
 * @module
 */

import { checkOwnWords, drawWords, formatCode, invitationUrl, passwordOf } from "./codes.js";
import { Connection } from "./connection.js";
import { Driver, noData } from "./driver.js";
import * as errors from "./errors.js";
import { CHANGED, NOT_NEEDED, reason, UNREADABLE } from "./left_out.js";
import { manifestOf, manifestOfText } from "./listing.js";
import { pairAsSender, Tries } from "./pairing.js";
import { Sender } from "./sender.js";
import { sha256 } from "./sha256.js";
import { Signaling } from "./signaling.js";
import { deferred, now, RECONNECT_TIME, sleep, timeLimit } from "./timing.js";

/** @typedef {import("./flyx.js").SendOptions} SendOptions */
/** @typedef {import("./flyx.js").Done} Done */
/** @typedef {import("./listing.js").SentManifest} SentManifest */
/** @typedef {import("./pairing.js").Code} Code */

/** Receivers at a time that have not proved themselves: strangers cannot take every place, nor much memory. */
const MAX_UNPAIRED = 8;

/** Seconds for receivers that have everything to leave the room before we do. */
const DRAIN_TIMEOUT = 1;

/** Seconds between two tries to make a lost connection anew. */
const RECONNECT_PAUSE = 1;

/** Seconds between two progress events. */
const PROGRESS_INTERVAL = 0.1;

/** Errors after which no more receivers are taken. */
const CLOSES_ROOM = new Set(["too_many_tries", "too_many_unfinished", "connection_mismatch"]);

/** Send to as many receivers as asked for. @param {SendOptions} options @returns {Promise<Done[]>} */
export async function send(options) {
  const stopped = new AbortController();
  const stop = () => stopped.abort(errors.interrupted("it was stopped"));
  if (options.signal?.aborted) stop();
  options.signal?.addEventListener("abort", stop, { once: true });
  try {
    const manifest = options.text === undefined ? manifestOf(options.entries ?? []) : manifestOfText(options.text);
    const code = makeCode(options);
    const { server, apiToken, WebSocket } = options;
    const hold = options.reconnect ?? RECONNECT_TIME;
    const place = { server, roomId: null, role: /** @type {const} */ ("sender"), hold, apiToken, WebSocket };
    const signaling = await Signaling.enter(place, stopped.signal);
    tellManifest(options.on, manifest);
    const { roomId } = signaling;
    const { password } = code;
    const told = { code: formatCode(roomId, password), words: password, url: invitationUrl(server, roomId, password) };
    options.on({ event: "room", room_id: roomId, server, ...told });
    return await new SendSession(options, signaling, manifest, code, stopped.signal).run();
  } catch (error) {
    const failure = errors.asFlyxError(error);
    options.on({ event: "error", code: failure.code, message: failure.message, hint: failure.hint });
    throw failure;
  } finally {
    options.signal?.removeEventListener("abort", stop);
  }
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
class SendSession {
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
    return this.#serving.size > 0 || this.#held.length > 0 || (this.#connecting.size > 0 && !CLOSES_ROOM.has(closed.code));
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
        this.on({ event: "notice", message: `The server is out of reach (${message.reason}). Trying to get back to it.` });
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
    const left = 3 - this.tries.failed;
    const tries = left === 1 ? "1 more wrong try" : `${left} more wrong tries`;
    this.on({ event: "notice", message: `Wrong words were given. After ${tries} the code stops working.` });
  }

  /** Take no more receivers. Those that have paired go on. @param {errors.FlyxError} error */
  #close(error) {
    if (this.#closed) return;
    this.#closed = error;
    for (const receiver of this.#waiting.splice(0)) this.#tellFailed(receiver, error);
    if (this.#serving.size) {
      this.on({ event: "notice", message: `${error.message.replace(/\.$/, "")}. What is being sent goes on.` });
    }
  }
}

/** One receiver: its connections, one after another, and what is sent over them. */
class Receiver {
  #session;
  /** The connection that is being made, or is. @type {Connection | null} */
  connection = null;
  isServed = false;
  #hasLeft = false;
  /** It has proved itself over an earlier connection. */
  #hasPaired = false;
  /** Ends the pairing that is under way. @type {AbortController | null} */
  #pairing = null;
  /** @type {Sender | null} */
  #machine = null;
  /** @type {Driver | null} */
  #driver = null;
  /** Since it has accepted. */
  #begunAt = 0;
  #resumedBytes = 0;
  /** What has been told of entries. @type {Map<number, string>} */
  #told = new Map();
  #path = "";

  /** @param {SendSession} session @param {string} clientId @param {number} number 1, 2, 3 in the order of arrival. */
  constructor(session, clientId, number) {
    this.#session = session;
    this.clientId = clientId;
    this.number = number;
  }

  /** Send to it over one connection after another, if need be. @returns {Promise<Done>} */
  async run() {
    /** @type {errors.FlyxError | null} */
    let lost = null;
    let deadline = Infinity;
    for (;;) {
      try {
        if (lost && (this.#session.roomGone || this.#hasLeft || now() >= deadline)) throw lost;
        if (!lost || this.#session.signaling.isThere) return await this.#attempt(lost !== null, deadline);
      } catch (error) {
        const failure = errors.asFlyxError(error);
        const canRepair = this.#session.reconnect > 0 && !this.#session.roomGone && !this.#hasLeft;
        if (failure.code === "connection_lost" && canRepair) {
          if (failure === lost) throw failure;
          lost = failure;
          deadline = now() + this.#session.reconnect;
          const { code, message } = failure;
          this.#session.on({ event: "peer", peer: this.number, state: "lost", code, message });
          this.#session.lost(this);
        } else if (!lost || !["peer_unreachable", "pairing_timed_out"].includes(failure.code)) {
          throw failure;
        } else if (!canRepair || now() >= deadline) {
          // That another connection could not be made says less than why it was wanted.
          throw lost;
        }
      }
      await timeLimit(sleep(RECONNECT_PAUSE), null, null, this.#session.signal);
    }
  }

  /** @param {boolean} isAnew There was a connection before. @param {number} deadline */
  async #attempt(isAnew, deadline) {
    const { signaling, signal } = this.#session;
    const connection = new Connection({
      iceServers: signaling.iceServers,
      tell: (type, data) => signaling.post(type, { ...data, target_id: this.clientId }),
      RTCPeerConnection: this.#session.RTCPeerConnection,
    });
    this.connection = connection;
    try {
      await connection.offer();
      if (isAnew) {
        // It may take long until a receiver that has lost the server as well reads the offer.
        const late = errors.peerUnreachable("the receiver does not answer");
        await timeLimit(connection.whenDescribed(), Math.max(0, deadline - now()), late, signal);
      }
      const channels = await connection.connected(signal);
      await this.#pair(connection, channels);
      return await this.#send(connection, channels);
    } finally {
      this.#machine = null;
      this.#driver = null;
      this.connection = null;
      await connection.close();
    }
  }

  /** @param {Connection} connection @param {import("./channel.js").Channels} channels */
  async #pair(connection, channels) {
    const { signaling, code, tries, sessions, manifest } = this.#session;
    const [ours, theirs] = connection.fingerprints();
    this.#pairing = new AbortController();
    const signal = AbortSignal.any([this.#session.signal, this.#pairing.signal]);
    const binding = { roomId: signaling.roomId, fingerprints: { sender: ours, receiver: theirs } };
    try {
      await pairAsSender(channels, { binding, code, tries, sessions, isText: manifest.content === "text", signal });
    } finally {
      this.#pairing = null;
    }
  }

  /** @param {Connection} connection @param {import("./channel.js").Channels} channels @returns {Promise<Done>} */
  async #send(connection, channels) {
    const { manifest, on } = this.#session;
    const machine = new Sender(manifest, channels.maxMessageSize, now());
    this.#machine = machine;
    if (!this.#hasPaired) on({ event: "peer", peer: this.number, state: "paired" });
    this.#hasPaired = true;
    const work = new SenderWork(machine, manifest);
    /** @type {any} */
    let delivered = null;
    /** @type {errors.FlyxError | null} */
    let failure = null;
    let nextProgress = 0;
    let toldBytes = -1;
    const progress = () => {
      const bytes = machine.bytesConfirmed;
      if (!this.#begunAt || now() < nextProgress || bytes === toldBytes) return;
      nextProgress = now() + PROGRESS_INTERVAL;
      toldBytes = bytes;
      on({ event: "progress", peer: this.number, bytes, total: machine.expectedBytes });
    };
    work.tell = (event) => {
      if (event.is === "roundTrip") this.#tellPath(connection, event.seconds);
      else if (event.is === "accepted") this.#begunAt ||= now();
      else if (event.is === "resumed") this.#tellResumed(event);
      else if (event.is === "confirmed") this.#tellFile(event.file, null);
      else if (event.is === "lost") this.#tellFile(event.file, event.code);
      else if (event.is === "delivered") delivered = event;
      else if (event.is === "failed") failure = event.error;
    };
    work.drained = progress;
    this.#driver = new Driver(machine, channels, work);
    this.#session.admit(this);
    await this.#driver.run(this.#session.signal);
    if (failure) throw failure;
    const { files, bytes, digest } = delivered;
    const missing = [...this.#told.values()].filter((code) => code && !NOT_NEEDED.has(code)).length;
    on({ event: "progress", peer: this.number, bytes, total: bytes });
    const done = { files, bytes, missing, digest };
    const seconds = now() - (this.#begunAt || now());
    on({ event: "done", peer: this.number, ...done, resumed: this.#resumedBytes, seconds, algorithm: "sha256" });
    return done;
  }

  /** @param {Connection} connection @param {number} rtt */
  async #tellPath(connection, rtt) {
    const path = await connection.path();
    if (!path || JSON.stringify(path) === this.#path) return;
    this.#path = JSON.stringify(path);
    this.#session.on({ event: "path", peer: this.number, ...path, rtt });
  }

  /** @param {{ files: number, bytes: number }} resumed */
  #tellResumed({ files, bytes }) {
    // What it has from an earlier connection is no news.
    if (this.#told.size) return;
    this.#resumedBytes += bytes;
    this.#session.on({ event: "resume", peer: this.number, files, bytes });
  }

  /** @param {number} index @param {string | null} code Why it goes without the entry. */
  #tellFile(index, code) {
    if (this.#told.get(index) === (code ?? "")) return;
    this.#told.set(index, code ?? "");
    if (code && NOT_NEEDED.has(code)) return;
    const { path } = this.#session.manifest.rows[index];
    const error = code ? { error: reason(code) } : {};
    this.#session.on({ event: "file", peer: this.number, index, path, ...error });
  }

  // What happens to it.

  /** Its turn has come. */
  release() {
    this.#machine?.release();
    this.#driver?.wake();
  }

  /** It is in the room again. Return whether we go on with it. @param {boolean} recovered */
  returned(recovered) {
    if (this.#machine) {
      // What took its connection to the server may have taken that to us.
      if (!recovered) this.#check("the receiver has lost the connection");
      return true;
    }
    if (recovered) return true;
    if (!this.#hasPaired) return false;
    this.connection?.giveUp(errors.peerUnreachable("an offer was lost"));
    return true;
  }

  /** The server has lost it: so have we, unless we hear from it soon. */
  doubt() {
    this.#machine?.peerGone(now());
    this.#driver?.wake();
  }

  /** @param {string} suspicion */
  #check(suspicion) {
    this.#machine?.checkPath(now(), suspicion);
    this.#driver?.wake();
  }

  /** The server says that it has gone. */
  leave() {
    this.#hasLeft = true;
    const gone = errors.interrupted("the receiver left");
    if (this.#machine) this.doubt();
    else if (this.#pairing) this.#pairing.abort(gone);
    else this.connection?.giveUp(gone);
  }

  /** Nothing more will come from the room. @param {errors.FlyxError} error */
  roomGone(error) {
    if (!this.#machine && !this.#pairing) this.connection?.giveUp(error);
  }
}

/** What drives a Sender: reading blocks, and the pace that its receiver wants. */
class SenderWork {
  #machine;
  #manifest;
  /** Bytes that may leave, as of a time, if the receiver wants a rate. */
  #allowance = 0;
  #countedAt = now();
  /** @type {number | null} */
  #nextTime = null;
  /** @type {(event: any) => void} */
  tell = () => {};
  drained = () => {};

  /** @param {Sender} machine @param {SentManifest} manifest */
  constructor(machine, manifest) {
    this.#machine = machine;
    this.#manifest = manifest;
  }

  next() {
    this.drained();
    const request = this.#machine.nextRead();
    return request && this.#read(request);
  }

  /** @param {import("./sender.js").Request} request */
  async #read({ file, offset, length }) {
    const source = this.#manifest.sources[file];
    const row = this.#manifest.rows[file];
    try {
      if (offset === 0 && !(await isAsListed(source))) throw new Changed();
      const bytes = length ? await readExactly(source, offset, length) : new Uint8Array(0);
      // Its last block: what was read before it is of the same file only if it is still that.
      if (offset + length === row.size && !(await isAsListed(source))) throw new Changed();
      this.#machine.blockRead(bytes, await sha256(bytes));
    } catch (error) {
      const isChanged = error instanceof Changed || !(await isAsListed(source).catch(() => false));
      this.#machine.blockFailed(isChanged ? CHANGED : UNREADABLE);
    }
  }

  data() {
    const size = this.#machine.nextDataSize;
    this.#nextTime = null;
    if (size === null || !this.#mayLeave(size)) return undefined;
    return this.#machine.nextData();
  }

  /** Keep to the rate that the receiver wants. @param {number} size */
  #mayLeave(size) {
    const { rate } = this.#machine;
    if (!rate) return true;
    const time = now();
    // Whoever is woken late finds what it has missed, but not more than a tenth of a second of it.
    const most = Math.max(size, rate * 0.1);
    this.#allowance = Math.min(most, this.#allowance + rate * (time - this.#countedAt));
    this.#countedAt = time;
    if (this.#allowance < size) {
      this.#nextTime = time + (size - this.#allowance) / rate;
      return false;
    }
    this.#allowance -= size;
    return true;
  }

  nextTime() {
    return this.#nextTime;
  }

  receiveData() {
    noData();
  }

  /** @param {any} event */
  event(event) {
    this.tell(event);
  }
}

/** A file is not what it was when it was listed. */
class Changed extends Error {}

/** Whether a source is still what was listed, as far as that can be asked. @param {import("./flyx.js").Source} source */
async function isAsListed(source) {
  if (!source.look) return true;
  const { size, mtime } = await source.look();
  return size === source.size && mtime === source.mtime;
}

/** @param {import("./flyx.js").Source} source @param {number} offset @param {number} length */
async function readExactly(source, offset, length) {
  const read = await source.read?.(offset, length);
  const bytes = read instanceof ArrayBuffer ? new Uint8Array(read) : read;
  if (bytes?.length !== length) throw new Changed();
  return bytes;
}
