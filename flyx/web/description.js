/**
 * What a peer may say of itself in a session description (SDP), as flyx/rtc/description.py judges it: one
 * section of data channels over DTLS and ICE. Of that, a new description is made of what matters and nothing
 * else.
 *
 * RFC 8866 (SDP), RFC 8839 (ICE in SDP), RFC 8841 (SCTP in SDP), RFC 8842 (DTLS in SDP).
 *
 * @module
 */

import { unhex } from "./bytes.js";
import { protocolError } from "./errors.js";
import { MIN_MESSAGE_SIZE } from "./messages.js";

/** Characters of a description. */
const MAX_SIZE = 32 * 1024;

/**
 * Candidates taken of one peer: each is checked against each of ours, and is traffic to hosts that may
 * never have asked for it.
 */
export const MAX_CANDIDATES = 128;

/** What a peer accepts that does not say (RFC 8841 §6.1). */
const DEFAULT_MAX_MESSAGE_SIZE = 65_536;

const MEDIA = /^m=application \d{1,5} (?:UDP|TCP)\/DTLS\/SCTP webrtc-datachannel$/;
/** The grammar of the values that we act on. @type {Record<string, RegExp>} */
const ATTRIBUTES = {
  "ice-ufrag": /^[A-Za-z0-9+/]{4,256}$/,
  "ice-pwd": /^[A-Za-z0-9+/]{22,256}$/,
  setup: /^(?:active|passive|actpass)$/,
  mid: /^[!-~]{1,64}$/,
  "sctp-port": /^\d{1,5}$/,
};
const FINGERPRINT = /^sha-256 ((?:[0-9a-f]{2}:){31}[0-9a-f]{2})$/i;

/**
 * @typedef {object} Description
 * @property {string} sdp Without candidates.
 * @property {Uint8Array} fingerprint SHA-256 of the certificate that the peer has to have.
 * @property {number} maxMessageSize Bytes of the largest message to send.
 * @property {string[]} candidates
 * @property {string} mid
 */

/** Return what a description of ours says of our certificate. @param {string} sdp */
export function fingerprintOf(sdp) {
  const told = sdp.split(/\r?\n/).map((line) => FINGERPRINT.exec(line.replace(/^a=fingerprint:/, ""))?.[1]);
  const found = [...new Set(told.flatMap((value) => value?.toUpperCase() ?? []))];
  // The browser verifies that the certificate has one of them: there must be no other to choose.
  if (found.length !== 1) throw protocolError("a bad session description (not one SHA-256 fingerprint)");
  return unhex(found[0].replaceAll(":", ""));
}

/**
 * Judge the description of a peer.
 *
 * @param {string} sdp
 * @returns {Description}
 * @throws {FlyxError} `protocol_error`: it is no such description.
 */
export function judge(sdp) {
  if (sdp.length > MAX_SIZE) throw bad(`more than ${MAX_SIZE} characters`);
  const lines = sdp.split(/\r?\n/).filter(Boolean);
  if (lines.some((line) => !/^[ -~]+$/.test(line))) throw bad("not lines of printable characters");
  const media = lines.filter((line) => line.startsWith("m="));
  if (media.length !== 1 || !MEDIA.test(media[0])) throw bad("not exactly one section of data channels");
  const value = (/** @type {string} */ name) => {
    const found = lines
      .filter((line) => line.startsWith(`a=${name}:`))
      .map((line) => line.slice(name.length + 3));
    if (found.length > 1) throw bad(`${name} more than once`);
    return found[0];
  };
  const kept = Object.entries(ATTRIBUTES).map(([name, grammar]) => {
    const found = value(name);
    if (found === undefined || !grammar.test(found)) throw bad(name);
    return `a=${name}:${found}`;
  });
  const said = value("max-message-size") ?? String(DEFAULT_MAX_MESSAGE_SIZE);
  // 0 says that any is accepted (RFC 8841 §6).
  const maxMessageSize = Number(/^\d{1,20}$/.test(said) ? said : NaN) || Infinity;
  if (maxMessageSize < MIN_MESSAGE_SIZE) throw bad(`messages of ${said} bytes at most`);
  const mid = /** @type {string} */ (value("mid"));
  const fingerprint = fingerprintOf(lines.filter((line) => line.startsWith("a=fingerprint:")).join("\n"));
  const made = [
    "v=0",
    "o=- 0 0 IN IP4 0.0.0.0",
    "s=-",
    "t=0 0",
    ...(lines.includes("a=ice-lite") ? ["a=ice-lite"] : []),
    `a=group:BUNDLE ${mid}`,
    media[0],
    "c=IN IP4 0.0.0.0",
    "a=ice-options:trickle",
    `a=fingerprint:sha-256 ${hexColons(fingerprint)}`,
    ...kept,
    `a=max-message-size:${said}`,
  ];
  const candidates = lines.filter((line) => line.startsWith("a=candidate:")).map((line) => line.slice(2));
  return { sdp: made.map((line) => `${line}\r\n`).join(""), fingerprint, maxMessageSize, candidates, mid };
}

/** @param {Uint8Array} bytes */
const hexColons = (bytes) =>
  Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0").toUpperCase()).join(":");

/** @param {string} what */
const bad = (what) => protocolError(`a bad session description (${what})`);
