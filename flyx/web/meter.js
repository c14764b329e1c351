/**
 * Shows how far a transfer is, how fast it goes and how long it takes; or for how long it has stood still.
 *
 * @module
 */

import { Pace } from "./pace.js";
import { durationText, sizeText } from "./texts.js";
import { say, visible } from "./view.js";

/** Percent after which that is read out. */
const TOLD = 25;

export class Meter {
  #bar;
  #numbers;
  #file;
  #pace = null;
  #done = 0;
  #total = null;
  #told = 0;
  /** What it stands still for, in words, and since when. @type {{ state: string, since: number } | null} */
  #still = null;

  /**
   * @param {HTMLProgressElement} bar
   * @param {HTMLElement} numbers
   * @param {HTMLElement | null} file Where the name of what came last goes.
   */
  constructor(bar, numbers, file = null) {
    this.#bar = bar;
    this.#numbers = numbers;
    this.#file = file;
  }

  /** Begin, with so many bytes to come; null if nobody knows. */
  start(total) {
    this.#total = total;
    this.#still = null;
    this.#bar.removeAttribute("value");
    this.#numbers.textContent = "";
    if (this.#file) this.#file.textContent = "";
  }

  /** So many bytes were there before. */
  resume(bytes) {
    this.#pace = new Pace(bytes, now());
  }

  file(path) {
    if (this.#file) this.#file.textContent = visible(path);
  }

  advance(bytes, total) {
    if (bytes !== this.#done) this.goesOn();
    this.#pace ??= new Pace(0, now());
    this.#pace.advance(bytes, now());
    this.#done = bytes;
    this.#total = total ?? this.#total;
    if (this.#total) {
      const percent = this.#percent;
      this.#bar.max = this.#total;
      this.#bar.value = bytes;
      document.title = `${percent} % – flyx`;
      if (percent >= this.#told + TOLD) {
        this.#told = percent - (percent % TOLD);
        say(`${percent} percent`);
      }
    }
    this.draw();
  }

  /**
   * Nothing comes, and has not for so long: say so in the place of a speed, until it goes on.
   *
   * @param {string} state
   * @param {number} seconds
   */
  standsStill(state, seconds) {
    this.#still = { state, since: this.#still?.since ?? now() - seconds };
    this.draw();
  }

  /** It goes on: the time in which it stood still takes nothing from its speed. */
  goesOn() {
    if (!this.#still) return;
    this.#still = null;
    this.#pace = new Pace(this.#done, now());
    this.draw();
  }

  /** Write the numbers as they are now: without news, a speed falls. */
  draw() {
    const done = sizeText(this.#done);
    const parts = [this.#total ? `${done} of ${sizeText(this.#total)}` : done];
    if (this.#total) parts.unshift(`${this.#percent} %`);
    const speed = this.#pace?.speed(now()) ?? null;
    const left = this.#pace?.remaining(this.#total, now()) ?? null;
    if (this.#still) {
      parts.push(`${this.#still.state} for ${durationText(Math.round(now() - this.#still.since))}`);
    } else {
      if (speed !== null) parts.push(`${sizeText(speed)}/s`);
      if (left !== null && this.#done < this.#total) parts.push(`${durationText(Math.ceil(left))} left`);
    }
    this.#numbers.textContent = parts.join(" · ");
  }

  get #percent() {
    return Math.floor((this.#done / this.#total) * 100);
  }
}

function now() {
  return performance.now() / 1000;
}
