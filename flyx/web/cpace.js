/**
 * CPace, a balanced PAKE: the cipher suite CPACE-X25519-SHA512, as flyx/pairing/cpace.py has it.
 *
 * X25519 and SHA-512 are WebCrypto's, in constant time. The map to the curve is BigInt: its two powers have
 * fixed exponents, and random factors blind their bases, so that their time tells nothing of the password.
 *
 * draft-irtf-cfrg-cpace-21; RFC 9380 §6.7.1 for Elligator 2; RFC 7748 for X25519.
 *
 * @module
 */

import { concat, randomBytes, utf8 } from "./bytes.js";
import { protocolError } from "./errors.js";

/** Bytes of a field element, a scalar and a share. */
export const FIELD_SIZE = 32;

const DSI = utf8("CPace255");
const DSI_ISK = utf8("CPace255_ISK");

/** Bytes that SHA-512 takes at a time. */
const HASH_BLOCK_SIZE = 128;

const P = 2n ** 255n - 19n;
/** Of Curve25519: v² = u³ + A u² + u modulo P. */
const A = 486662n;
/** The non-square of Elligator 2 on this curve. */
const Z = 2n;

/** What comes before the 32 bytes of an X25519 key in PKCS #8 (RFC 8410 §7). */
const PKCS8_HEAD = Uint8Array.of(0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x6e, 4, 0x22, 4, 0x20);

/** Join parts, each behind its length in LEB128: no two lists give the same bytes.
 *
 * @param {...Uint8Array} parts
 */
export const lvCat = (...parts) => concat(parts.flatMap((part) => [leb128(part.length), part]));

/** @param {number} number */
function leb128(number) {
  const bytes = [];
  for (; number > 0x7f; number >>>= 7) bytes.push((number & 0x7f) | 0x80);
  return Uint8Array.from([...bytes, number]);
}

/** Return the transcript of a run whose initiator speaks first: both shares and associated data.
 *
 * @param {Uint8Array} initiatorShare
 * @param {Uint8Array} initiatorData
 * @param {Uint8Array} responderShare
 * @param {Uint8Array} responderData
 */
export const transcriptIr = (initiatorShare, initiatorData, responderShare, responderData) =>
  concat([lvCat(initiatorShare, initiatorData), lvCat(responderShare, responderData)]);

/** Return what is hashed to the generator. Zeros fill the first block of the hash.
 *
 * @param {Uint8Array} prs The password-related string.
 * @param {Uint8Array} ci What both parties know of themselves and their channel.
 * @param {Uint8Array} sid Public, and fresh in each run.
 */
export function generatorString(prs, ci, sid) {
  const padding = Math.max(0, HASH_BLOCK_SIZE - 1 - lvCat(prs).length - lvCat(DSI).length);
  return lvCat(DSI, prs, new Uint8Array(padding), ci, sid);
}

/** Return the generator of a run: 32 bytes, as secret as the password. Arguments as of generatorString.
 *
 * @param {Uint8Array} prs
 * @param {Uint8Array} ci
 * @param {Uint8Array} sid
 */
export async function calculateGenerator(prs, ci, sid) {
  const digest = await sha512(generatorString(prs, ci, sid));
  const element = toNumber(digest.subarray(0, FIELD_SIZE)) & ((1n << 255n) - 1n);
  return toBytes(elligator2(element, blinding(), blinding()));
}

const blinding = () => 1n + (toNumber(randomBytes(FIELD_SIZE)) % (P - 1n));

/** Map a field element to the u coordinate of a point.
 *
 * @param {bigint} element
 * @param {bigint} inverseBlinding
 * @param {bigint} squareBlinding
 */
function elligator2(element, inverseBlinding, squareBlinding) {
  // 1 + Z r² is never 0: -1/Z is no square. The factor that hides it is taken off again.
  const denominator = (1n + Z * element * element) % P;
  const inverse = power((denominator * inverseBlinding) % P, P - 2n) * inverseBlinding;
  const u = modulo(-A * inverse);
  // Euler's criterion: whether u is on the curve; a square as a factor does not change that.
  const vSquared = (((u + A) * u + 1n) * u) % P;
  const euler = power((((vSquared * squareBlinding) % P) * squareBlinding) % P, (P - 1n) / 2n);
  // 1, or P - 1 where there is no such point: then it is on the curve for -u - A. No branch on either.
  return [modulo(-u - A), u][Number(euler & 1n)];
}

/** @param {bigint} number */
const modulo = (number) => ((number % P) + P) % P;

/** @param {bigint} base @param {bigint} exponent Fixed, so that its bits may show in the time. */
function power(base, exponent) {
  let result = 1n;
  for (const bit of exponent.toString(2)) {
    result = (result * result) % P;
    if (bit === "1") result = (result * base) % P;
  }
  return result;
}

/** @param {Uint8Array} bytes Little-endian. */
const toNumber = (bytes) => bytes.reduceRight((number, byte) => (number << 8n) | BigInt(byte), 0n);

/** @param {bigint} number */
const toBytes = (number) =>
  Uint8Array.from({ length: FIELD_SIZE }, (_, i) => Number((number >> BigInt(8 * i)) & 0xffn));

/**
 * Return X25519(scalar, point).
 *
 * @param {Uint8Array} scalar
 * @param {Uint8Array} point
 * @throws {FlyxError} `protocol_error`: the point is of low order, so that all would know the result.
 */
export async function scalarMultVfy(scalar, point) {
  const subtle = crypto.subtle;
  const [key, peer] = await Promise.all([
    subtle.importKey("pkcs8", concat([PKCS8_HEAD, scalar]), "X25519", false, ["deriveBits"]),
    subtle.importKey("raw", /** @type {BufferSource} */ (point), "X25519", true, []),
  ]);
  try {
    const product = new Uint8Array(await subtle.deriveBits({ name: "X25519", public: peer }, key, 256));
    if (product.some((byte) => byte !== 0)) return product;
  } catch (error) {
    // RFC 7748 §6.1: WebCrypto refuses all zeros itself.
    if (!(error instanceof DOMException)) throw error;
  }
  throw protocolError("a share of low order");
}

/** Return the intermediate session key, 64 bytes.
 *
 * @param {Uint8Array} sid
 * @param {Uint8Array} shared X25519 of our scalar and the share of the peer.
 * @param {Uint8Array} transcript Of both.
 */
export const intermediateSessionKey = (sid, shared, transcript) =>
  sha512(concat([lvCat(DSI_ISK, sid, shared), transcript]));

/** @param {Uint8Array} content */
async function sha512(content) {
  return new Uint8Array(await crypto.subtle.digest("SHA-512", /** @type {BufferSource} */ (content)));
}
