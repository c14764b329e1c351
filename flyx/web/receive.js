/**
 * Receiving: join a room, let its sender connect, and take what is offered; over one connection after
 * another, if need be (flyx/client/receive.py, flyx/client/reception.py).
 *
 * @module
 */

import { Arrivals } from "./arrivals.js";
import { concat, hex, areEqual } from "./bytes.js";
import { parseInvitation, passwordOf, resolveWords } from "./codes.js";
import { Connection } from "./connection.js";
import { Driver } from "./driver.js";
import * as errors from "./errors.js";
import { reason } from "./left_out.js";
import { pairAsReceiver } from "./pairing.js";
import { Receiver } from "./receiver.js";
import { sha256 } from "./sha256.js";
import { Signaling } from "./signaling.js";
import { untilStopped } from "./stopping.js";
import { deferred, now, RECONNECT_TIME, timeLimit } from "./timing.js";

/** @typedef {import("./flyx.js").Sink} Sink */
/** @typedef {import("./flyx.js").Event} Event */
/** @typedef {import("./channel.js").Channels} Channels */
/** @typedef {import("./manifest_inbox.js").Offered} Offered */

/** Seconds between two progress events. */
const PROGRESS_INTERVAL = 0.1;

/** The number of the only peer. */
const SENDER = 1;

/**
 * Receive everything that the sender of a room offers.
 *
 * @param {import("./flyx.js").ReceiveOptions} options
 */
export function receive(options) {
  return untilStopped(options, async (signal) => {
    const { roomId, words } = parseInvitation(options.code);
    const hold = options.reconnect ?? RECONNECT_TIME;
    const place = { server: options.server, roomId, role: /** @type {const} */ ("receiver"), hold };
    const signaling = await Signaling.enter({ ...place, WebSocket: options.WebSocket }, signal);
    options.on({ event: "room", room_id: roomId, server: options.server });
    options.on({ event: "peer", peer: SENDER, state: "joined" });
    return await new Reception(options, signaling, words, signal).run();
  });
}

/** What is received of the sender of one room. */
class Reception {
  #options;
  #signaling;
  #words;
  #signal;
  #hold;
  /** The last offer that no connection was begun for, and the candidates that followed it.
   *
   * @type {{ sdp: string, candidates: any[] } | null}
   */
  #offered = null;
  /** The connection that is being made, or is. @type {Connection | null} */
  #connection = null;
  /** Of it, once it is. @type {Channels | null} */
  #channels = null;
  /** @type {"waiting" | "connecting" | "pairing" | "receiving"} */
  #state = "waiting";
  /** Ends the pairing that is under way. @type {AbortController | null} */
  #pairing = null;
  /** Of the connection that there is. @type {Receiver | null} */
  #machine = null;
  /** @type {Driver | null} */
  #driver = null;
  /** Why the sender can offer no more. @type {errors.FlyxError | null} */
  #gone = null;
  /** Why the last connection is no more. @type {errors.FlyxError | null} */
  #lost = null;
  /** Until when another one is waited for. */
  #deadline = 0;
  #wake = deferred();
  /** Of the first pairing; takes the place of the words. @type {import("./pairing.js").Session | null} */
  #session = null;
  #hasPaired = false;
  /** Id of what our person is asked about, or has accepted: no other is taken. @type {string | null} */
  #offeredId = null;
  /** The answer. @type {Promise<Accepted> | null} */
  #accepting = null;
  /** Once something was accepted. @type {Accepted | null} */
  #accepted = null;

  /**
   * @param {import("./flyx.js").ReceiveOptions} options
   * @param {Signaling} signaling
   * @param {string[]} words
   * @param {AbortSignal} signal
   */
  constructor(options, signaling, words, signal) {
    this.#options = options;
    this.#signaling = signaling;
    this.#words = words;
    this.#signal = signal;
    this.#hold = options.reconnect ?? RECONNECT_TIME;
  }

  async run() {
    this.#listen();
    /** @type {errors.FlyxError | null} */
    let failure = null;
    /** @type {import("./connection.js").Path | null} */
    let path = null;
    try {
      for (;;) {
        try {
          const connection = await this.#connect();
          try {
            const done = await this.#receive(connection);
            path = await connection.path();
            return done;
          } finally {
            await connection.close();
          }
        } catch (error) {
          this.#failed(errors.asFlyxError(error));
        }
      }
    } catch (error) {
      failure = errors.asFlyxError(error);
      throw failure;
    } finally {
      // After its end nobody cares whether a sink can say goodbye.
      await this.#accepted?.end(failure).catch(() => {});
      await this.#signaling.leave(this.#farewell(failure, path));
    }
  }

  /** @param {errors.FlyxError | null} failure @param {import("./connection.js").Path | null} path */
  #farewell(failure, path) {
    if (!failure) {
      const isRelayed = path?.local === "relay" || path?.remote === "relay";
      return { outcome: isRelayed ? /** @type {const} */ ("relayed") : /** @type {const} */ ("direct") };
    }
    return this.#signal.aborted
      ? { reason: "the receiver stopped" }
      : { outcome: /** @type {const} */ ("failed") };
  }

  // The room.

  /** Take what the room says. Its end matters only while we are not connected. */
  async #listen() {
    try {
      for (;;) this.#react(await this.#signaling.next());
    } catch (error) {
      this.#gone = errors.asFlyxError(error);
      if (this.#state === "connecting") this.#connection?.giveUp(this.#gone);
      this.#wake.resolve();
    }
  }

  /** @param {any} message */
  #react(message) {
    const { type } = message;
    if (type === "interrupted") {
      this.#notice(`The server is out of reach (${message.reason}). Trying to get back to it.`);
    } else if (type === "restored") {
      this.#notice("The server is there again.");
      if (!message.recovered) this.#beginAnew();
    } else if (type === "join") {
      if (!message.recovered) this.#beginAnew();
    } else if (type === "offer") {
      this.#offered = { sdp: message.sdp, candidates: [] };
      if (this.#state === "connecting") this.#supersede();
      // It makes one when it has lost the one that there is, or the server has made it up.
      else if (this.#state === "receiving")
        this.#machine?.checkPath(now(), "the sender has lost the connection");
    } else if (type === "ice_candidate") {
      if (this.#offered) this.#offered.candidates.push(message.candidate);
      else if (this.#state === "connecting") this.#connection?.addCandidate(message.candidate);
    } else if (type === "disconnect") {
      if (!message.away) this.#senderLeft();
      else if (this.#state === "receiving") this.#machine?.peerGone(now());
    }
    this.#driver?.wake();
    this.#wake.resolve();
  }

  #senderLeft() {
    this.#gone = errors.senderLeft();
    if (this.#state === "receiving") this.#machine?.peerGone(now());
    else if (this.#state === "pairing") this.#pairing?.abort(this.#gone);
    else if (this.#state === "connecting") this.#connection?.giveUp(this.#gone);
  }

  /** What the sender and we said may be lost, or the sender is new: it will offer another connection. */
  #beginAnew() {
    this.#gone = null;
    if (this.#state !== "waiting" && this.#state !== "connecting") return;
    this.#offered = null;
    if (this.#state === "connecting") this.#supersede();
  }

  #supersede() {
    this.#connection?.giveUp(new Superseded());
  }

  /** @param {string} message */
  #notice(message) {
    this.#options.on({ event: "notice", message });
  }

  // One connection after another.

  /**
   * Wait until the sender offers a connection, and make it: as long as it stays in the room, our turn will
   * come.
   */
  async #connect() {
    for (;;) {
      const offered = await this.#awaitOffer();
      this.#offered = null;
      this.#state = "connecting";
      const connection = new Connection({
        iceServers: this.#signaling.iceServers,
        tell: (type, data) => this.#signaling.post(type, data),
        RTCPeerConnection: this.#options.RTCPeerConnection,
      });
      this.#connection = connection;
      try {
        for (const candidate of offered.candidates) connection.addCandidate(candidate);
        connection.answer(offered.sdp);
        this.#channels = await connection.connected(this.#signal);
        this.#state = "pairing";
        return connection;
      } catch (error) {
        this.#state = "waiting";
        await connection.close();
        if (!(error instanceof Superseded)) throw error;
      }
    }
  }

  async #awaitOffer() {
    const waiting = (async () => {
      while (!this.#offered) {
        if (this.#gone) throw this.#gone;
        this.#wake = deferred();
        await this.#wake.promise;
      }
      return this.#offered;
    })();
    const seconds = this.#lost ? Math.max(0, this.#deadline - now()) : null;
    return timeLimit(waiting, seconds, errors.peerUnreachable("the sender offers none"), this.#signal);
  }

  /** @param {Connection} connection */
  async #receive(connection) {
    const channels = /** @type {Channels} */ (this.#channels);
    await this.#pair(connection, channels);
    this.#state = "receiving";
    const machine = new Receiver(now(), this.#offeredId);
    this.#machine = machine;
    const work = new ReceiverWork(machine, connection, this.#options.on, (offered) => this.#accept(offered));
    this.#driver = new Driver(machine, channels, work);
    work.wake = () => this.#driver?.wake();
    await this.#driver.run(this.#signal);
    return work.result();
  }

  /** @param {Connection} connection @param {Channels} channels */
  async #pair(connection, channels) {
    const [ours, theirs] = connection.fingerprints();
    this.#pairing = new AbortController();
    const { session } = await pairAsReceiver(channels, {
      binding: { roomId: this.#signaling.roomId, fingerprints: { sender: theirs, receiver: ours } },
      session: this.#session,
      hasWords: this.#words.length > 0,
      ask: (count) => this.#password(count),
      signal: AbortSignal.any([this.#signal, this.#pairing.signal]),
    });
    this.#session = session;
    if (!this.#hasPaired) this.#options.on({ event: "peer", peer: SENDER, state: "paired" });
    this.#hasPaired = true;
  }

  /** @param {number} count Of words of the list; 0: of the sender's own. */
  async #password(count) {
    let words = this.#words;
    if (!words.length) {
      const { askWords } = this.#options;
      if (!askWords) throw errors.badInput("the sender's code has words, and this one has none");
      words = parseWords(await askWords(count));
    }
    return passwordOf(count ? resolveWords(words, count) : words);
  }

  /**
   * Have what is offered accepted: once, however many connections it is offered over meanwhile.
   *
   * @param {Offered} offered
   * @returns {Promise<Accepted>}
   */
  #accept(offered) {
    this.#offeredId = offered.manifest.id;
    this.#accepting ??= this.#ask(offered);
    return this.#accepting;
  }

  /** Ask what is to become of what is offered. @param {Offered} offered */
  async #ask(offered) {
    const { on, ask } = this.#options;
    const { manifest } = offered;
    const { id, content, files, bytes } = manifest;
    on({ event: "manifest", manifest, manifest_id: id, content, files, bytes });
    const verified = this.#session !== null;
    const isText = content === "text";
    const sink = isText && verified ? null : await ask({ manifest, verified });
    if (!sink && !(isText && verified)) throw errors.declined();
    const arrivals = new Arrivals(offered);
    const chosen = isText
      ? textSink((text) => on({ event: "text", peer: SENDER, text }))
      : /** @type {Sink} */ (sink);
    this.#accepted = new Accepted(arrivals, chosen);
    await this.#accepted.begin();
    if (arrivals.verified) {
      on({ event: "resume", peer: SENDER, files: arrivals.files, bytes: arrivals.verified });
    }
    return this.#accepted;
  }

  /** Wait for the sender to offer another connection, if one was lost. @param {errors.FlyxError} error */
  #failed(error) {
    this.#machine = null;
    this.#driver = null;
    const noticed = this.#channels?.control.closed ?? false;
    this.#state = "waiting";
    if (error.code === "connection_lost") {
      if (this.#gone || !this.#hold) throw error;
      this.#lost = error;
      this.#deadline = now() + this.#hold;
      this.#options.on({
        event: "peer",
        peer: SENDER,
        state: "lost",
        code: error.code,
        message: error.message,
      });
      // The sender need not have noticed.
      if (!noticed && !this.#offered) this.#signaling.beginAnew();
    } else if (!this.#lost || !["peer_unreachable", "pairing_timed_out"].includes(error.code)) {
      throw error;
    } else if (this.#gone || now() >= this.#deadline) {
      // That another connection could not be made says less than why it was wanted.
      throw this.#lost;
    }
  }
}

/** Another offer takes the place of the one that was followed. */
class Superseded extends Error {}

/** @param {string} typed */
const parseWords = (typed) => parseInvitation(`000000 ${typed}`).words;

/** What was accepted, and where it goes: it outlives connections. */
class Accepted {
  #sink;
  /** What the sink was told last: the file that is open, and where its next bytes go. */
  #open = { file: -1, offset: 0 };
  /** @type {Promise<void>} */
  #begun = Promise.resolve();
  #hasEnded = false;

  /** @param {Arrivals} arrivals @param {Sink} sink */
  constructor(arrivals, sink) {
    this.arrivals = arrivals;
    this.#sink = sink;
    this.begunAt = now();
    // Bytes that were there before.
    this.resumed = 0;
  }

  /** Find out what is there already, and make the directories. */
  begin() {
    this.#begun = this.#begin();
    return this.#begun;
  }

  async #begin() {
    const { manifest } = this.arrivals.offered;
    try {
      this.arrivals.hold((await this.#sink.begin(manifest)) ?? []);
      for (const entry of manifest.entries) {
        if (entry.kind !== "directory") continue;
        await this.#sink.open(entry, 0);
        await this.#sink.finish(entry, new Uint8Array(0));
      }
    } catch (error) {
      throw errors.storageError(error, "write", "there");
    }
    this.resumed = this.arrivals.verified;
  }

  /** Carry out an operation. Return the name that a file has in the end, once it has that.
   *
   * @param {any} operation
   * @returns {Promise<string | undefined>}
   */
  async perform(operation) {
    if (operation.do === "end") {
      await this.end(null);
      return undefined;
    }
    const entry = /** @type {import("./flyx.js").Entry} */ (
      this.arrivals.offered.entries.get(operation.file)
    );
    try {
      return await this.#perform(operation, entry);
    } catch (error) {
      throw errors.storageError(error, "write", entry.path);
    }
  }

  /** @param {any} operation @param {import("./flyx.js").Entry} entry */
  async #perform(operation, entry) {
    const { arrivals } = this;
    const { file, offset, digest } = operation;
    if (operation.do === "open") {
      if (offset === 0) arrivals.restart(file);
      // After a broken connection it may be just there.
      if (this.#open.file === file && this.#open.offset === offset) return undefined;
      await this.#sink.open(entry, offset);
      this.#open = { file, offset };
    } else if (operation.do === "write") {
      const block = operation.bytes ?? new Uint8Array(operation.length);
      const found = await sha256(block);
      if (digest && !areEqual(found, digest)) throw errors.corruptData(entry.path);
      const { length } = block;
      await this.#sink.write(entry, offset, block, found);
      this.#open.offset += length;
      if (arrivals.isStream) {
        arrivals.streamDigest.update(found);
        arrivals.streamOffset += length;
      } else {
        arrivals.appendBlock(file, found);
      }
    } else if (operation.do === "finish") {
      const name = await this.#sink.finish(entry, digest);
      this.#open = { file: -1, offset: 0 };
      arrivals.finish(file, digest);
      return name || entry.path;
    } else if (operation.do === "discard") {
      await this.#sink.discard(entry);
      this.#open = { file: -1, offset: 0 };
      arrivals.lose(file);
    }
    return undefined;
  }

  /** @param {errors.FlyxError | null} error */
  async end(error) {
    if (this.#hasEnded) return;
    this.#hasEnded = true;
    // One call at a time.
    await this.#begun.catch(() => {});
    try {
      await this.#sink.end(error);
    } catch (failure) {
      throw errors.storageError(failure, "write", "there");
    }
  }
}

/** Takes a text. @param {(text: string) => void} tell @returns {Sink} */
function textSink(tell) {
  /** @type {Uint8Array[]} */
  const blocks = [];
  return {
    begin: async () => {},
    open: async () => {},
    write: async (_entry, _offset, bytes) => {
      blocks.push(bytes);
    },
    finish: async () => {
      try {
        tell(new TextDecoder("utf-8", { fatal: true }).decode(concat(blocks)));
      } catch {
        throw errors.protocolError("a text that is not UTF-8");
      }
    },
    discard: async () => {},
    end: async () => {},
  };
}

/** What drives a Receiver: the question about the offer, and what its sink has to do. */
class ReceiverWork {
  #machine;
  #connection;
  #on;
  #accept;
  /** @type {Accepted | null} */
  #accepted = null;
  /** @type {any} */
  #received = null;
  /** @type {errors.FlyxError | null} */
  #error = null;
  #nextProgress = 0;
  #told = -1;
  #path = "";
  wake = () => {};

  /**
   * @param {Receiver} machine
   * @param {Connection} connection
   * @param {(event: Event) => void} on
   * @param {(offered: Offered) => Promise<Accepted>} accept
   */
  constructor(machine, connection, on, accept) {
    this.#machine = machine;
    this.#connection = connection;
    this.#on = on;
    this.#accept = accept;
  }

  next() {
    const operation = this.#machine.nextOperation();
    return operation && this.#perform(operation);
  }

  /** @param {any} operation */
  async #perform(operation) {
    const accepted = /** @type {Accepted} */ (this.#accepted);
    const name = await accepted.perform(operation);
    if (name !== undefined) {
      const { told } = /** @type {any} */ (accepted.arrivals.offered.entries.get(operation.file));
      const about = { index: operation.file, path: told, saved_as: name };
      this.#on({ event: "file", peer: SENDER, ...about, digest: hex(operation.digest), algorithm: "sha256" });
    }
    this.#machine.operationDone(operation);
    this.#tellProgress();
  }

  data() {
    return undefined;
  }

  /** @param {string | ArrayBuffer} message @param {number} time */
  receiveData(message, time) {
    this.#machine.receiveData(message, time);
  }

  /** @param {any} event */
  event(event) {
    if (event.is === "offered") {
      this.#ask(event.offered).catch((error) => {
        this.#machine.cancel(errors.asFlyxError(error));
        this.wake();
      });
    } else if (event.is === "roundTrip") {
      this.#tellPath(event.seconds);
    } else if (event.is === "silent" || event.is === "heard") {
      this.#on({ event: "peer", peer: SENDER, state: event.is, seconds: event.seconds });
    } else if (event.is === "lost") {
      const { told } = /** @type {any} */ (this.#accepted?.arrivals.offered.entries.get(event.file));
      this.#on({ event: "file", peer: SENDER, index: event.file, path: told, error: reason(event.code) });
    } else if (event.is === "received") {
      this.#received = event;
    } else if (event.is === "failed") {
      this.#error = event.error;
    }
  }

  /** @param {Offered} offered */
  async #ask(offered) {
    this.#accepted = await this.#accept(offered);
    this.#machine.accept(this.#accepted.arrivals);
    this.#tellProgress();
    this.wake();
  }

  /** @param {number} rtt */
  async #tellPath(rtt) {
    const path = await this.#connection.path();
    if (!path || JSON.stringify(path) === this.#path) return;
    this.#path = JSON.stringify(path);
    this.#on({ event: "path", peer: SENDER, ...path, rtt });
  }

  #tellProgress() {
    const bytes = this.#accepted?.arrivals.verified ?? 0;
    if (now() < this.#nextProgress || bytes === this.#told) return;
    this.#nextProgress = now() + PROGRESS_INTERVAL;
    this.#told = bytes;
    this.#on({ event: "progress", peer: SENDER, bytes, total: this.#machine.expectedBytes });
  }

  /** What both sides have confirmed. @throws {errors.FlyxError} Nothing. */
  result() {
    if (this.#error) throw this.#error;
    const { files, bytes, digest } = this.#received;
    const { arrivals, begunAt, resumed } = /** @type {Accepted} */ (this.#accepted);
    const { missing } = arrivals;
    this.#on({ event: "progress", peer: SENDER, bytes, total: bytes });
    const seconds = now() - begunAt;
    const done = { files, bytes, missing, digest };
    this.#on({ event: "done", peer: SENDER, ...done, resumed, seconds, algorithm: "sha256" });
    return done;
  }
}
