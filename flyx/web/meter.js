/**
 * Shows how far a transfer is, how fast it goes and how long it takes.
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
  #total = null;
  #told = 0;

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
    this.#pace ??= new Pace(0, now());
    this.#pace.advance(bytes, now());
    this.#total = total ?? this.#total;
    const parts = [this.#total ? `${sizeText(bytes)} of ${sizeText(this.#total)}` : sizeText(bytes)];
    const speed = this.#pace.speed(now());
    if (speed !== null) parts.push(`${sizeText(speed)}/s`);
    const left = this.#pace.remaining(this.#total, now());
    if (left !== null && bytes < this.#total) parts.push(`${durationText(Math.ceil(left))} left`);
    if (this.#total) {
      const percent = Math.floor((bytes / this.#total) * 100);
      this.#bar.max = this.#total;
      this.#bar.value = bytes;
      parts.unshift(`${percent} %`);
      document.title = `${percent} % – flyx`;
      if (percent >= this.#told + TOLD) {
        this.#told = percent - (percent % TOLD);
        say(`${percent} percent`);
      }
    }
    this.#numbers.textContent = parts.join(" · ");
  }
}

function now() {
  return performance.now() / 1000;
}
