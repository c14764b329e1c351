/**
 * One receiver of a sender: its connections, one after another, and what is sent over them.
 *
 * @module
 */

import { free } from "./bytes.js";
import { Connection } from "./connection.js";
import { Driver, noData } from "./driver.js";
import * as errors from "./errors.js";
import { CHANGED, NOT_NEEDED, reason, UNREADABLE } from "./left_out.js";
import { pairAsSender } from "./pairing.js";
import { Sender } from "./sender.js";
import { sha256 } from "./sha256.js";
import { now, sleep, timeLimit } from "./timing.js";

/** @typedef {import("./flyx.js").Done} Done */
/** @typedef {import("./listing.js").SentManifest} SentManifest */
/** @typedef {import("./send.js").SendSession} SendSession */

/** Seconds between two tries to make a lost connection anew. */
const RECONNECT_PAUSE = 1;

/** Seconds between two progress events. */
const PROGRESS_INTERVAL = 0.1;

/** One of the receivers in a room. */
export class Receiver {
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

  /**
   * @param {SendSession} session
   * @param {string} clientId
   * @param {number} number 1, 2, 3 in the order of arrival.
   */
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
    this.#path = "";
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
      await pairAsSender(channels, {
        binding,
        code,
        tries,
        sessions,
        isText: manifest.content === "text",
        signal,
      });
    } finally {
      this.#pairing = null;
    }
  }

  /**
   * @param {Connection} connection
   * @param {import("./channel.js").Channels} channels
   * @returns {Promise<Done>}
   */
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
      else if (event.is === "silent" || event.is === "heard")
        on({ event: "peer", peer: this.number, state: event.is, seconds: event.seconds });
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
    on({
      event: "done",
      peer: this.number,
      ...done,
      resumed: this.#resumedBytes,
      seconds,
      algorithm: "sha256",
    });
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
      const read = length ? await source.read?.(offset, length) : new ArrayBuffer(0);
      const bytes = read instanceof ArrayBuffer ? new Uint8Array(read) : read;
      if (bytes?.length !== length) throw new Changed();
      // Its last block: what was read before it is of the same file only if it is still that.
      if (offset + length === row.size && !(await isAsListed(source))) throw new Changed();
      this.#machine.blockRead(bytes, await sha256(bytes));
      if (read instanceof ArrayBuffer) free(read);
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

/**
 * Whether a source is still what was listed, as far as that can be asked.
 *
 * @param {import("./flyx.js").Source} source
 */
async function isAsListed(source) {
  if (!source.look) return true;
  const { size, mtime } = await source.look();
  return size === source.size && mtime === source.mtime;
}
