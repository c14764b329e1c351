/**
 * How fast a transfer goes, over the last seconds, and what is left (flyx/cli/pace.py). `now` is monotonic
 * seconds.
 *
 * @module
 */

/** Seconds over which a speed is measured, at most. */
const WINDOW = 10;

/** Seconds before there is a speed at all. */
const SHORTEST = 0.5;

export class Pace {
  /** When which bytes were there, the oldest first. */
  #samples;

  /**
   * @param {number} done Bytes that are there already: they are no speed.
   * @param {number} now
   */
  constructor(done, now) {
    this.#samples = [{ time: now, done }];
  }

  /** So many bytes are there now. */
  advance(done, now) {
    // Something began anew.
    if (done < this.#samples.at(-1).done) this.#samples = [];
    this.#samples.push({ time: now, done });
    while (this.#samples.length > 2 && this.#samples[1].time <= now - WINDOW) this.#samples.shift();
  }

  /** Bytes a second; null while there is too little to say. */
  speed(now) {
    const [first] = this.#samples;
    const gained = this.#samples.at(-1).done - first.done;
    return gained > 0 && now - first.time >= SHORTEST ? gained / (now - first.time) : null;
  }

  /** Seconds that the rest takes at this speed. */
  remaining(total, now) {
    const speed = this.speed(now);
    return speed === null || total === null ? null : (total - this.#samples.at(-1).done) / speed;
  }
}
