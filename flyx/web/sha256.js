/**
 * SHA-256 piece by piece, which WebCrypto does not have: for digests over digests and the id of a manifest,
 * of which no more than a few bytes come for each MiB of content. Content itself is hashed by WebCrypto.
 *
 * FIPS 180-4 §6.2.
 *
 * @module
 */

export const DIGEST_SIZE = 32;

const BLOCK = 64;

/**
 * The first bits of the fractional parts of the square and cube roots of the first primes (§4.2.2, §5.3.3).
 */
const { INITIAL, K } = (() => {
  /** @type {number[]} */
  const primes = [];
  for (let n = 2; primes.length < 64; n++) if (primes.every((prime) => n % prime)) primes.push(n);
  const fraction = (/** @type {number} */ prime, /** @type {bigint} */ degree) => {
    // The largest root with root ** degree <= prime * 2 ** (32 * degree); its low 32 bits are the fraction.
    const target = BigInt(prime) << (32n * degree);
    let root = 0n;
    for (let bit = 1n << 37n; bit; bit >>= 1n) if ((root | bit) ** degree <= target) root |= bit;
    return Number(root & 0xffffffffn);
  };
  return {
    INITIAL: Uint32Array.from(primes.slice(0, 8), (prime) => fraction(prime, 2n)),
    K: Uint32Array.from(primes, (prime) => fraction(prime, 3n)),
  };
})();

/** A hash of all that was added so far. */
export class Sha256 {
  #state = INITIAL.slice();
  #pending = new Uint8Array(BLOCK);
  #view = new DataView(this.#pending.buffer);
  #words = new Uint32Array(64);
  // Bytes added in all.
  #size = 0;

  /** @param {Uint8Array} bytes @returns {this} */
  update(bytes) {
    for (let at = 0; at < bytes.length;) {
      const filled = this.#size % BLOCK;
      const taken = Math.min(BLOCK - filled, bytes.length - at);
      this.#pending.set(bytes.subarray(at, at + taken), filled);
      this.#size += taken;
      at += taken;
      if (this.#size % BLOCK === 0) this.#compress();
    }
    return this;
  }

  /** Return the digest of all added so far, DIGEST_SIZE bytes. */
  digest() {
    const last = this.copy();
    const padding = new Uint8Array(((BLOCK * 2 - 9 - (this.#size % BLOCK)) % BLOCK) + 9);
    padding[0] = 0x80;
    const view = new DataView(padding.buffer);
    view.setBigUint64(padding.length - 8, BigInt(this.#size) * 8n);
    last.update(padding);
    const digest = new Uint8Array(DIGEST_SIZE);
    const words = new DataView(digest.buffer);
    last.#state.forEach((word, i) => words.setUint32(4 * i, word));
    return digest;
  }

  /** Return another one, of all added so far. */
  copy() {
    const other = new Sha256();
    other.#state.set(this.#state);
    other.#pending.set(this.#pending);
    other.#size = this.#size;
    return other;
  }

  #compress() {
    const w = this.#words;
    for (let i = 0; i < 16; i++) w[i] = this.#view.getUint32(4 * i);
    for (let i = 16; i < 64; i++) {
      const [early, late] = [w[i - 15], w[i - 2]];
      const s0 = rotate(early, 7) ^ rotate(early, 18) ^ (early >>> 3);
      const s1 = rotate(late, 17) ^ rotate(late, 19) ^ (late >>> 10);
      w[i] = w[i - 16] + s0 + w[i - 7] + s1;
    }
    let [a, b, c, d, e, f, g, h] = this.#state;
    for (let i = 0; i < 64; i++) {
      const s1 = rotate(e, 6) ^ rotate(e, 11) ^ rotate(e, 25);
      const t1 = (h + s1 + ((e & f) ^ (~e & g)) + K[i] + w[i]) | 0;
      const s0 = rotate(a, 2) ^ rotate(a, 13) ^ rotate(a, 22);
      const t2 = (s0 + ((a & b) ^ (a & c) ^ (b & c))) | 0;
      [h, g, f, e, d, c, b, a] = [g, f, e, (d + t1) | 0, c, b, a, (t1 + t2) | 0];
    }
    [a, b, c, d, e, f, g, h].forEach((word, i) => {
      this.#state[i] += word;
    });
  }
}

/** @param {number} word @param {number} bits */
const rotate = (word, bits) => (word >>> bits) | (word << (32 - bits));

/** Return the SHA-256 of content, by WebCrypto. @param {Uint8Array} content */
export async function sha256(content) {
  return new Uint8Array(await crypto.subtle.digest("SHA-256", /** @type {BufferSource} */ (content)));
}
