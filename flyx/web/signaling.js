/**
 * A place in a room of the signaling server, as flyx/client/signaling.py has it: it is held when the
 * connection is lost, and gone back to. Messages are counted both ways, so that none is lost or comes twice.
 *
 *     next() --> { type: "interrupted" }   the connection is lost
 *     next() --> { type: "restored" }      it is there again, or
 *     next() rejects                       the place is lost for good
 *
 * @module
 */

import * as errors from "./errors.js";
import { checkJoined, errorOfClose, parseServerUntrusted } from "./server_messages.js";
import { deferred, now, sleep, timeLimit } from "./timing.js";

const SUBPROTOCOL = "flyx.v1";

/** Seconds for the server to say `joined`, from the first attempt to connect. */
const JOINED_TIMEOUT = 15;

/** Seconds between our pings, as a page cannot see those of WebSocket, and for the answer. */
const PING_INTERVAL = 20;
const PING_TIMEOUT = 10;

/**
 * Seconds: the n-th pause before a try is random up to FIRST_PAUSE * 2 ** n and LONGEST_PAUSE; and from
 * the loss to the end of all tries, if our place is not held for longer.
 */
const FIRST_PAUSE = 0.5;
const LONGEST_PAUSE = 8;
const LIMIT = 600;

/** Seconds for our goodbye. */
const FAREWELL_TIMEOUT = 1;

/**
 * Messages and characters that wait for a connection; and that are kept of what it was given (members.py).
 */
const MAX_OUTGOING = 8192;
const MAX_TAIL_LENGTH = 32;
const MAX_TAIL_SIZE = 64 * 1024;

/** Seconds between two requests for newer ICE servers, at least. */
const MIN_REFRESH_PAUSE = 1;

/** A page may close with 1000, which is a goodbye, or with codes from 3000 on. */
const GOING_AWAY = 3001;

/** WebSocket.OPEN. */
const OPEN = 1;

const RELAYED = new Set(["offer", "answer", "ice_candidate"]);
const COUNTED = new Set(["join", "disconnect", ...RELAYED]);

/** @typedef {"sender" | "receiver"} Role */

/**
 * @typedef {object} Place
 * @property {string} server URL of the server: http, https, ws or wss.
 * @property {string | null} roomId null: a new room.
 * @property {Role} role
 * @property {number} hold Seconds for which we would like it held while the connection is lost.
 * @property {string} [apiToken] What the server wants of those who create rooms.
 * @property {typeof WebSocket} [WebSocket]
 */

/** There is no connection at the moment. */
class TryAgain extends Error {
  /** @param {errors.FlyxError} error */
  constructor(error) {
    super(error.message);
    this.error = error;
  }
}

/** Its other end, or the network, has closed a connection. */
class Closed extends Error {
  /** @param {number} code */
  constructor(code) {
    super(`closed with ${code}`);
    this.code = code;
  }
}

/** A WebSocket whose frames wait until they are asked for. */
class Line {
  #socket;
  /** @type {unknown[]} */
  #frames = [];
  #arrival = deferred();
  /** @type {Closed | null} */
  #closed = null;
  opened = deferred();
  wasOpen = false;

  /** @param {string} url @param {typeof WebSocket} Socket */
  constructor(url, Socket) {
    this.#socket = new Socket(url, SUBPROTOCOL);
    this.#socket.addEventListener("open", () => {
      this.wasOpen = true;
      this.opened.resolve();
    });
    this.#socket.addEventListener("message", (event) => {
      this.#frames.push(event.data);
      this.#arrival.resolve();
    });
    this.#socket.addEventListener("close", (event) => {
      this.#closed = new Closed(event.code);
      this.opened.reject(this.#closed);
      this.#arrival.resolve();
    });
  }

  /** Return the next frame. @throws {Closed} */
  async next() {
    while (!this.#frames.length) {
      if (this.#closed) throw this.#closed;
      this.#arrival = deferred();
      await this.#arrival.promise;
    }
    return this.#frames.shift();
  }

  /** Send a frame; on a closed connection it is dropped, as it would be on the way. @param {string} text */
  send(text) {
    if (this.#socket.readyState === OPEN) this.#socket.send(text);
  }

  /** @param {number} code */
  close(code) {
    this.#socket.close(code);
  }

  /** Wait until it is closed. */
  async whenClosed() {
    for (;;)
      if (
        await this.next().then(
          () => false,
          () => true,
        )
      )
        return;
  }
}

/** A room that we are in. */
export class Signaling {
  /** What the server last said of our place. @type {any} */
  joined = null;
  /** What connections may ask. @type {any[]} */
  iceServers = [];
  #url;
  #place;
  /** @type {string | null} */
  #roomId;
  /** null while the connection is lost. @type {Line | null} */
  #line = null;
  /**
   * Text of messages that no connection has been given yet, and whether each counts.
   *
   * @type {[string, boolean][]}
   */
  #outgoing = [];
  #hasOverflowed = false;
  /** The newest messages given to a connection, and how many were in all. @type {string[]} */
  #tail = [];
  #sent = 0;
  #received = 0;
  /** When a message came last. */
  #heardAt = 0;
  /** What next() returns, and who waits for it. @type {any[]} */
  #inbox = [];
  #arrival = deferred();
  /** @type {errors.FlyxError | null} */
  #over = null;
  #isLeaving = false;
  /** Cuts the pause before the next try short. */
  #hurry = deferred();
  /** Receivers that have paired. @type {Set<string>} */
  #paired = new Set();
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #refresh;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #pinging;

  /** @param {Place} place */
  constructor(place) {
    this.#place = place;
    this.#roomId = place.roomId;
    this.#url = place.server
      .replace(/^http(?=s?:)/i, "ws")
      .replace(/[?#].*$/, "")
      .replace(/\/*$/, "");
    this.online = () => this.#hurry.resolve();
  }

  /** Take a place. @param {Place} place @param {AbortSignal} signal @throws {FlyxError} */
  static async enter(place, signal) {
    const signaling = new Signaling(place);
    try {
      if (place.apiToken && !place.roomId) await signaling.#createRoom(place.apiToken, signal);
      await signaling.#enter(signal);
    } catch (error) {
      throw error instanceof TryAgain ? error.error : error;
    }
    globalThis.addEventListener?.("online", signaling.online);
    return signaling;
  }

  get roomId() {
    return this.joined.room_id;
  }

  /** Whether we are connected to the server. */
  get isThere() {
    return this.#line !== null;
  }

  /**
   * Return the next message that is about peers, or what has become of the connection.
   *
   * @throws {FlyxError}
   */
  async next() {
    while (!this.#inbox.length) {
      if (this.#over) throw this.#over;
      await this.#arrival.promise;
    }
    return this.#inbox.shift();
  }

  /** Send a message soon, in order; while the connection is lost, when it is there again.
   *
   * @param {string} type
   * @param {object} data
   */
  post(type, data) {
    this.#outgoing.push([JSON.stringify({ type, data }), RELAYED.has(type) || type === "paired"]);
    if (this.#outgoing.length > MAX_OUTGOING) this.beginAnew();
    this.#flush();
  }

  /** Tell the server that a receiver has paired: it keeps its place, also when the room is full.
   *
   * @param {string} clientId
   */
  tellPaired(clientId) {
    this.#paired.add(clientId);
    if (this.joined.wants_paired) this.post("paired", { target_id: clientId });
  }

  /** Have our peers begin anew with us: `restored`, not recovered, follows once the server is there. */
  beginAnew() {
    this.#outgoing = [];
    this.#hasOverflowed = true;
    this.#part("a new connection is asked for");
  }

  /** Leave the room. @param {{ reason?: string, outcome?: "direct" | "relayed" | "failed" }} [farewell] */
  async leave({ reason = "", outcome } = {}) {
    this.#isLeaving = true;
    globalThis.removeEventListener?.("online", this.online);
    clearTimeout(this.#refresh);
    clearTimeout(this.#pinging);
    this.#hurry.resolve();
    const line = this.#line;
    if (!line) return;
    this.#flush();
    this.#line = null;
    line.send(JSON.stringify({ type: "disconnect", data: { reason, outcome } }));
    line.close(1000);
    await Promise.race([line.whenClosed(), sleep(FAREWELL_TIMEOUT)]);
  }

  // A new place, or the old one.

  /**
   * A page's WebSocket cannot bear the token: the room is made by a request.
   *
   * @param {string} token
   * @param {AbortSignal} signal
   */
  async #createRoom(token, signal) {
    const url = `${this.#url.replace(/^ws/i, "http")}/room`;
    const headers = { Authorization: `Bearer ${token}` };
    let body;
    let response;
    try {
      response = await fetch(url, { method: "POST", headers, signal });
      body = await response.json();
    } catch (error) {
      signal.throwIfAborted();
      throw errors.serverUnreachable(
        this.#url,
        error instanceof Error ? error.message : "it does not answer",
      );
    }
    if (!response.ok)
      throw errors.serverRefused(String(body?.message ?? `status ${response.status}`).slice(0, 500));
    if (typeof body?.room_id !== "string") throw errors.serverBroke("a room without its id");
    this.#roomId = body.room_id;
  }

  /** @param {AbortSignal} [signal] */
  async #enter(signal) {
    const path = this.#roomId ? `/ws/${this.#roomId}` : "/ws";
    const { role, hold } = this.#place;
    const query = `role=${role}&hold=${Math.round(hold)}`;
    const { line, joined } = await this.#open(`${path}?${query}`, null, signal);
    this.#adopt(line, joined);
  }

  /** @param {number | null} received @returns {Promise<{ type: string, recovered: boolean }>} */
  async #resume(received) {
    const { client_id: clientId, resume_token: token } = this.joined;
    const { line, joined } = await this.#open(`/ws/${this.#roomId}?resume=1`, { clientId, token, received });
    // The token is new whatever comes of it.
    this.joined = joined;
    if (joined.recovered && (this.#hasOverflowed || !this.#since(joined.received))) {
      // The server lacks something that we have no longer, or beginAnew() was called meanwhile.
      line.close(GOING_AWAY);
      return this.#resume(null);
    }
    this.#adopt(line, joined);
    return { type: "restored", recovered: joined.recovered };
  }

  /**
   * Connect, say who we are if we were here before, and take the answer.
   *
   * @param {string} path
   * @param {{ clientId: string, token: string, received: number | null } | null} claim
   * @param {AbortSignal} [signal]
   * @returns {Promise<{ line: Line, joined: any }>}
   */
  async #open(path, claim, signal) {
    const line = new Line(this.#url + path, this.#place.WebSocket ?? WebSocket);
    const late = new TryAgain(errors.serverUnreachable(this.#url, "it says nothing"));
    try {
      return { line, joined: await timeLimit(this.#expectJoined(line, claim), JOINED_TIMEOUT, late, signal) };
    } catch (error) {
      line.close(GOING_AWAY);
      throw error;
    }
  }

  /** @param {Line} line @param {{ clientId: string, token: string, received: number | null } | null} claim */
  async #expectJoined(line, claim) {
    const { role } = this.#place;
    const roomId = this.#roomId;
    /** @type {any} */
    let told = null;
    try {
      await line.opened.promise;
      if (claim) {
        const data = {
          client_id: claim.clientId,
          resume_token: claim.token,
          received: claim.received ?? undefined,
        };
        line.send(JSON.stringify({ type: "join", data }));
      }
      for (;;) {
        const message = parseServerUntrusted(await line.next(), role);
        if (message.type === "joined") {
          checkJoined(message, { roomId, role, claim });
          return message;
        }
        if (message.type !== "error") throw errors.serverRefused("it did not let us join");
        told = message;
      }
    } catch (error) {
      if (!(error instanceof Closed)) throw error;
      const wanted = { roomId, isNew: !roomId, role, url: this.#url, wasOpen: line.wasOpen };
      const closed = errorOfClose(error.code, told, wanted);
      throw closed.retry ? new TryAgain(closed.error) : closed.error;
    }
  }

  /** Take what comes as long as this connection is ours. @param {Line} line */
  async #read(line) {
    /** @type {any} */
    let told = null;
    try {
      for (;;) {
        const frame = await line.next();
        if (this.#line !== line) return;
        const message = parseServerUntrusted(frame, this.#place.role);
        if (message.type === "error" && message.fatal) told = message;
        else this.#take(message);
      }
    } catch (error) {
      if (this.#line !== line) return;
      if (error instanceof Closed) {
        const wanted = {
          roomId: this.#roomId,
          isNew: false,
          role: this.#place.role,
          url: this.#url,
          wasOpen: true,
        };
        const closed = errorOfClose(error.code, told, wanted);
        if (closed.retry) this.#lose(told?.message ?? "the connection was lost");
        else this.#end(closed.error);
      } else {
        this.#end(errors.asFlyxError(error));
        line.close(GOING_AWAY);
      }
    }
  }

  /** Speak over this connection from now on, first what the server has not taken from the one before.
   *
   * @param {Line} line
   * @param {any} joined
   */
  #adopt(line, joined) {
    if (joined.recovered) {
      const missing = this.#since(joined.received) ?? [];
      this.#outgoing.unshift(...missing.map((text) => /** @type {[string, boolean]} */ ([text, true])));
    } else {
      this.#outgoing = [];
      this.#received = 0;
      this.#hasOverflowed = false;
    }
    this.#tail = [];
    this.#sent = joined.received;
    this.joined = joined;
    this.#roomId = joined.room_id;
    this.#line = line;
    this.#takeIceServers(joined.ice_servers, joined.ice_servers_ttl);
    if (joined.wants_paired && !joined.recovered) {
      const present = new Set(joined.peers.map((/** @type {any} */ peer) => peer.client_id));
      this.#paired = new Set([...this.#paired].filter((clientId) => present.has(clientId)));
      this.post("paired", {});
      for (const clientId of this.#paired) this.post("paired", { target_id: clientId });
    }
    this.#ping(line);
    this.#flush();
    this.#read(line);
  }

  /** What we said after the first `count` messages; null if that is not all kept. @param {number} count */
  #since(count) {
    const first = this.#sent - this.#tail.length;
    return first <= count && count <= this.#sent ? this.#tail.slice(count - first) : null;
  }

  #flush() {
    if (!this.#line) return;
    for (const [text, counts] of this.#outgoing.splice(0)) {
      if (counts) this.#keep(text);
      this.#line.send(text);
    }
  }

  /** Keep what is given to a connection, which may lose it. @param {string} text */
  #keep(text) {
    this.#sent++;
    this.#tail.push(text);
    let size = this.#tail.reduce((sum, kept) => sum + kept.length, 0);
    while (this.#tail.length > MAX_TAIL_LENGTH || size > MAX_TAIL_SIZE)
      size -= this.#tail.shift()?.length ?? 0;
  }

  /** @param {any} message */
  #take(message) {
    this.#heardAt = now();
    if (COUNTED.has(message.type)) {
      this.#received++;
      this.#deliver(message);
    } else if (message.type === "ping") this.post("pong", {});
    else if (message.type === "ice_servers")
      this.#takeIceServers(message.ice_servers, message.ice_servers_ttl);
    else if (message.type === "joined") throw errors.serverBroke("`joined` in the middle");
  }

  /** @param {any} item */
  #deliver(item) {
    this.#inbox.push(item);
    this.#arrival.resolve();
    this.#arrival = deferred();
  }

  /** See whether the server answers, again and again. @param {Line} line */
  #ping(line) {
    clearTimeout(this.#pinging);
    this.#pinging = setTimeout(() => {
      if (this.#line !== line) return;
      const asked = now();
      this.post("ping", {});
      this.#pinging = setTimeout(() => {
        if (this.#line !== line) return;
        if (this.#heardAt >= asked) this.#ping(line);
        else this.#part("it does not answer");
      }, PING_TIMEOUT * 1000);
    }, PING_INTERVAL * 1000);
  }

  /** @param {any[]} servers @param {number | undefined} ttl Seconds for which their credentials are good. */
  #takeIceServers(servers, ttl) {
    this.iceServers = servers;
    clearTimeout(this.#refresh);
    if (!ttl) return;
    this.#refresh = setTimeout(
      () => {
        this.post("ice_servers", {});
        // If no answer comes, we ask again.
        this.#takeIceServers(this.iceServers, ttl);
      },
      Math.max(ttl / 2, MIN_REFRESH_PAUSE) * 1000,
    );
  }

  // Losing it.

  /**
   * Give the connection up, for this reason, and come back at once over another one.
   *
   * @param {string} reason
   */
  #part(reason) {
    const line = this.#line;
    if (!line) return;
    this.#hurry.resolve();
    this.#lose(reason);
    line.close(GOING_AWAY);
  }

  /** @param {errors.FlyxError} error */
  #end(error) {
    this.#line = null;
    this.#over = error;
    clearTimeout(this.#refresh);
    clearTimeout(this.#pinging);
    this.#arrival.resolve();
  }

  /** @param {string} reason */
  #lose(reason) {
    this.#line = null;
    clearTimeout(this.#pinging);
    this.#deliver({ type: "interrupted", reason });
    this.#restore().then(
      (restored) => restored && this.#deliver(restored),
      (error) => this.#end(errors.asFlyxError(error)),
    );
  }

  async #restore() {
    const lostAt = now();
    let wanted = 0;
    for (let tries = 0; ; tries++) {
      const pause = wanted + Math.random() * Math.min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** Math.min(tries, 16));
      await Promise.race([sleep(pause), this.#hurry.promise]);
      this.#hurry = deferred();
      if (this.#isLeaving) return null;
      try {
        return await this.#goBack();
      } catch (error) {
        if (!(error instanceof TryAgain)) throw error;
        const limit = Math.max(LIMIT, Math.min(this.#place.hold, this.joined.limits.grace));
        wanted = error.error.retryAfter;
        if (now() + wanted > lostAt + limit) throw error.error;
      }
    }
  }

  /** Take our place again, or a new one if it is gone and there is one. */
  async #goBack() {
    const isGone = (/** @type {unknown} */ error) =>
      error instanceof errors.FlyxError && error.code === "no_such_room";
    try {
      return await this.#resume(this.#hasOverflowed ? null : this.#received);
    } catch (error) {
      if (!isGone(error)) throw error;
    }
    try {
      await this.#enter();
    } catch (error) {
      if (!isGone(error)) throw error;
      const hint = this.#place.role === "receiver" ? errors.ASK_FOR_ANOTHER : undefined;
      throw errors.roomLost("the server has forgotten it, or has closed it", hint);
    }
    return { type: "restored", recovered: false };
  }
}
