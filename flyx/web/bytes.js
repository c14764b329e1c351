/**
 * Bytes and their texts: hex, base64, UTF-8, and paths that need not be UTF-8.
 *
 * @module
 */

const encoder = new TextEncoder();
const strict = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** @param {string} text @returns {Uint8Array} */
export const utf8 = (text) => encoder.encode(text);

/** @param {Uint8Array} bytes */
export function hex(bytes) {
  let text = "";
  for (const byte of bytes) text += byte.toString(16).padStart(2, "0");
  return text;
}

/** @param {string} text Hex digits, an even number of them. */
export function unhex(text) {
  const bytes = new Uint8Array(text.length / 2);
  for (let i = 0; i < bytes.length; i++) bytes[i] = Number.parseInt(text.slice(2 * i, 2 * i + 2), 16);
  return bytes;
}

/** @param {readonly Uint8Array[]} parts */
export function concat(parts) {
  const whole = new Uint8Array(parts.reduce((size, part) => size + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

const { port1: toNobody, port2: nobody } = new MessageChannel();
// This one: at a port that is closed itself, Chromium does not even take what is sent.
nobody.close();

/**
 * Give the memory of a buffer back at once. Left to the collector of garbage, it would be later: in Firefox when
 * there are hundreds of MB.
 *
 * @param {ArrayBuffer} buffer It is empty afterwards.
 */
export function free(buffer) {
  // After buffer.transfer(0) Chromium would have the memory still, and no longer count it: ever more of it.
  toNobody.postMessage(null, [buffer]);
}

/** Whether two strings of bytes are the same, without telling by the time where they differ.
 *
 * @param {Uint8Array} one
 * @param {Uint8Array} other
 */
export function areEqual(one, other) {
  if (one.length !== other.length) return false;
  let difference = 0;
  for (let i = 0; i < one.length; i++) difference |= one[i] ^ other[i];
  return difference === 0;
}

/** @param {number} size */
export const randomBytes = (size) => crypto.getRandomValues(new Uint8Array(size));

/** Return a uniformly random integer from 0 to `below`, exclusive; `below` is a power of 2 up to 65,536. */
export const randomBelow = (/** @type {number} */ below) => {
  const [low, high] = randomBytes(2);
  return ((high << 8) | low) & (below - 1);
};

// A path on disk is bytes. As a string each byte that is no UTF-8 is half a surrogate pair, U+DC80 to U+DCFF,
// as in flyx/transfer/manifest.py (PEP 383).

// With u, a pair of surrogates is one character, and is not found.
const LONE = /[\ud800-\udfff]/u;
const NO_BYTE = /[\ud800-\udc7f\udd00-\udfff]/u;

/** Whether a path stands for bytes without a NUL. @param {string} path */
export const canBeOnDisk = (path) => !path.includes("\0") && !NO_BYTE.test(path);

/** Whether a path is text: no byte of it is half a character. @param {string} path */
export const isText = (path) => !LONE.test(path);

/** Return a path as people read it. @param {string} path */
export const readable = (path) => path.replace(/[\ud800-\udfff]/gu, "\ufffd");

/** Return how many bytes a path has on disk. @param {string} path */
export function pathSize(path) {
  let size = 0;
  for (const character of path) {
    const code = /** @type {number} */ (character.codePointAt(0));
    size += code < 0x80 || (code >= 0xdc80 && code <= 0xdcff) ? 1 : code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
  }
  return size;
}

/** Return the path that is these bytes on disk. @param {Uint8Array} bytes */
export function pathOfBytes(bytes) {
  try {
    return strict.decode(bytes);
  } catch {
    let path = "";
    for (let at = 0; at < bytes.length;) {
      const size = sequenceSize(bytes, at);
      path += size ? strict.decode(bytes.subarray(at, at + size)) : String.fromCharCode(0xdc00 + bytes[at]);
      at += size || 1;
    }
    return path;
  }
}

/** Return how many bytes a valid character has that begins here; 0 if none does.
 *
 * @param {Uint8Array} bytes
 * @param {number} at
 */
function sequenceSize(bytes, at) {
  for (let size = 1; size <= 4 && at + size <= bytes.length; size++) {
    try {
      strict.decode(bytes.subarray(at, at + size));
      return size;
    } catch {
      // It may be longer.
    }
  }
  return 0;
}

/** @param {string} text Base64, with its padding. @returns {Uint8Array | null} null if it is none. */
export function unbase64(text) {
  if (!/^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$/.test(text)) return null;
  return Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
}
