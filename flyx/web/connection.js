/**
 * One peer connection with the two data channels of a transfer. Descriptions and candidates travel through
 * the room.
 *
 * @module
 */

import { Channel } from "./channel.js";
import { fingerprintOf, judge, MAX_CANDIDATES } from "./description.js";
import { asFlyxError, peerUnreachable, protocolError } from "./errors.js";
import { deferred, timeLimit } from "./timing.js";

/** @typedef {import("./channel.js").Channels} Channels */
/** @typedef {import("./description.js").Description} Description */

/** Seconds from the descriptions to open channels. */
const CONNECT_TIMEOUT = 20;

/** Seconds that a closing connection gets for what is still under way. */
const CLOSE_TIMEOUT = 1;

const CONTROL = "control";
const DATA = "data";

/**
 * The path in use; what is not known of it is null.
 *
 * @typedef {{ local: string | null, remote: string | null, family: 4 | 6 | null }} Path
 */

/** A connection that is being made, or is. */
export class Connection {
  #pc;
  #tell;
  /** @type {Map<string, Channel>} */
  #channels = new Map();
  #opened = new Set();
  #outcome = deferred();
  #described = deferred();
  /** Candidates that came before the description of the peer. @type {any[] | null} */
  #early = [];
  #candidates = 0;
  /** @type {Description | null} */
  #theirs = null;
  #isClosed = false;

  /**
   * @param {object} how
   * @param {readonly any[]} how.iceServers
   * @param {(type: string, data: object) => void} how.tell Posts a message to the peer.
   * @param {typeof RTCPeerConnection} [how.RTCPeerConnection]
   */
  constructor({ iceServers, tell, RTCPeerConnection: Peer = RTCPeerConnection }) {
    this.#tell = tell;
    this.#pc = makePeerConnection(Peer, iceServers);
    this.#pc.addEventListener("icecandidate", ({ candidate }) => {
      // An empty one ends a generation; null follows when there is no other.
      if (candidate?.candidate === "") return;
      this.#tell("ice_candidate", { candidate: candidate ? candidateInit(candidate) : null });
    });
    this.#pc.addEventListener("datachannel", ({ channel }) => this.#add(channel, true));
  }

  /** Offer a connection to a receiver. */
  async offer() {
    for (const label of [CONTROL, DATA]) this.#add(this.#pc.createDataChannel(label), false);
    await this.#guarded(async () => {
      await this.#pc.setLocalDescription(await this.#pc.createOffer());
      this.#tell("offer", { sdp: this.#pc.localDescription?.sdp });
    });
  }

  /** Take the offer of a sender, and answer it. @param {string} sdp */
  answer(sdp) {
    return this.#guarded(async () => {
      await this.#takeDescription("offer", sdp);
      await this.#pc.setLocalDescription(await this.#pc.createAnswer());
      this.#tell("answer", { sdp: this.#pc.localDescription?.sdp });
    });
  }

  /** Take the answer of a receiver. @param {string} sdp */
  acceptAnswer(sdp) {
    if (this.#theirs || !this.#pc.localDescription) return undefined;
    return this.#guarded(() => this.#takeDescription("answer", sdp));
  }

  /** Take a candidate of the peer, null after its last. One that is refused is ignored: others may work.
   *
   * @param {any} candidate
   */
  async addCandidate(candidate) {
    if (this.#early) {
      if (this.#early.length <= MAX_CANDIDATES) this.#early.push(candidate);
      return;
    }
    if (this.#isClosed || ++this.#candidates > MAX_CANDIDATES) return;
    const mid = this.#theirs?.mid;
    try {
      // The end is said with an empty candidate: not all stacks take null.
      const { candidate: value } = candidate ?? { candidate: "" };
      await this.#pc.addIceCandidate({ candidate: value, sdpMid: mid, sdpMLineIndex: 0 });
    } catch {
      // It is malformed, or came after the last one.
    }
  }

  /** Have connected() reject with this, unless the connection is made. @param {unknown} error */
  giveUp(error) {
    this.#outcome.reject(error);
    this.#described.resolve();
  }

  /** Wait until the other side has taken our offer, for as long as that takes. */
  whenDescribed() {
    return this.#described.promise;
  }

  /**
   * Wait until both channels are open.
   *
   * @param {AbortSignal} signal
   * @returns {Promise<Channels>}
   * @throws {FlyxError}
   */
  async connected(signal) {
    const late = peerUnreachable(`it was not made within ${CONNECT_TIMEOUT} s`);
    await timeLimit(this.#outcome.promise, CONNECT_TIMEOUT, late, signal);
    const [control, data] = [CONTROL, DATA].map(
      (label) => /** @type {Channel} */ (this.#channels.get(label)),
    );
    const said = this.#theirs?.maxMessageSize ?? 0;
    return { control, data, maxMessageSize: Math.min(said, this.#pc.sctp?.maxMessageSize || said) };
  }

  /** The SHA-256 of our certificate and of the peer's, which DTLS has verified. */
  fingerprints() {
    const ours = fingerprintOf(this.#pc.localDescription?.sdp ?? "");
    return [ours, /** @type {Description} */ (this.#theirs).fingerprint];
  }

  /** The path in use, once there is one. @returns {Promise<Path | null>} */
  async path() {
    try {
      return pathOf(await this.#pc.getStats());
    } catch {
      // It is closed, or the stack has no statistics.
      return null;
    }
  }

  /** Close the channels first: a connection that ends at once takes along what is under way. */
  async close() {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.giveUp(peerUnreachable("the connection was closed"));
    const channels = [...this.#channels.values()];
    for (const channel of channels) channel.close();
    if (this.#opened.size) await Promise.all(channels.map((channel) => channel.whenClosed(CLOSE_TIMEOUT)));
    this.#pc.close();
    for (const channel of channels) channel.markClosed();
  }

  /** @param {"offer" | "answer"} type @param {string} sdp */
  async #takeDescription(type, sdp) {
    this.#theirs = judge(sdp);
    try {
      await this.#pc.setRemoteDescription({ type, sdp: this.#theirs.sdp });
    } catch (error) {
      throw protocolError(`a bad session description (${error instanceof Error ? error.message : error})`);
    }
    this.#described.resolve();
    const early = [...this.#theirs.candidates.map((candidate) => ({ candidate })), ...(this.#early ?? [])];
    this.#early = null;
    for (const candidate of early) await this.addCandidate(candidate);
  }

  /** Do this; what it throws ends the attempt to connect. @param {() => Promise<void>} work */
  async #guarded(work) {
    try {
      await work();
    } catch (error) {
      this.giveUp(asFlyxError(error));
    }
  }

  /** @param {RTCDataChannel} raw @param {boolean} isTheirs */
  #add(raw, isTheirs) {
    const { label } = raw;
    const isWanted = (label === CONTROL || label === DATA) && !this.#channels.has(label);
    // Whether it is ordered and reliable need not be asked: what comes is verified.
    if (isTheirs && !isWanted) {
      this.#violate(protocolError("a data channel that belongs to no transfer"));
      return;
    }
    this.#channels.set(label, new Channel(raw));
    if (raw.readyState === "open") this.#open(label);
    else raw.addEventListener("open", () => this.#open(label));
  }

  /** @param {string} label */
  #open(label) {
    this.#opened.add(label);
    if (this.#opened.size === 2) this.#outcome.resolve();
  }

  /** @param {import("./errors.js").FlyxError} error */
  #violate(error) {
    this.giveUp(error);
    for (const channel of this.#channels.values()) {
      channel.violation = error;
      channel.close();
    }
  }
}

/** @param {typeof RTCPeerConnection} Peer @param {readonly any[]} iceServers */
function makePeerConnection(Peer, iceServers) {
  try {
    return new Peer({ iceServers: [...iceServers] });
  } catch {
    // One URL that a browser does not understand must not take the others along.
    const usable = iceServers.filter((server) => {
      try {
        new Peer({ iceServers: [server] }).close();
        return true;
      } catch {
        return false;
      }
    });
    return new Peer({ iceServers: usable });
  }
}

/** @param {RTCIceCandidate} candidate */
function candidateInit({ candidate, sdpMid, sdpMLineIndex, usernameFragment }) {
  return { candidate, sdpMid, sdpMLineIndex, usernameFragment };
}

/** @param {RTCStatsReport} stats @returns {Path | null} */
function pathOf(stats) {
  /** @type {any[]} */
  const all = [...stats.values()];
  const transport = all.find(({ type }) => type === "transport");
  // Firefox has no such transport, and says which pair is selected.
  const pair =
    all.find(({ id }) => id === transport?.selectedCandidatePairId) ??
    all.find(
      ({ type, selected, nominated, state }) =>
        type === "candidate-pair" && (selected ?? (nominated && state === "succeeded")),
    );
  if (!pair) return null;
  const local = all.find(({ id }) => id === pair.localCandidateId);
  const remote = all.find(({ id }) => id === pair.remoteCandidateId);
  // Those of a browser itself may be hidden, or names.
  const address = [local?.address, remote?.address].find((one) => one && !one.endsWith(".local"));
  const family = address ? (address.includes(":") ? 6 : 4) : null;
  return { local: local?.candidateType ?? null, remote: remote?.candidateType ?? null, family };
}
