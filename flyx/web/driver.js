/**
 * Runs a transfer machine over its two channels, with work that takes time (a sink, a source) beside it.
 *
 * After every input - a message, room in the send buffer, work that is done, a deadline - the machine is
 * drained.
 *
 * @module
 */

import { asFlyxError, protocolError } from "./errors.js";
import { deferred, now } from "./timing.js";

/** @typedef {import("./session.js").Session} Session */
/** @typedef {import("./channel.js").Channel} Channel */

/** Seconds that the other side gets to read our last message and close. */
const CLOSE_TIMEOUT = 2;

/**
 * What drives a machine beyond control messages.
 *
 * @typedef {object} Work
 * @property {() => Promise<void> | undefined} next Begins what the machine asks for now; undefined if
 *     nothing. What it gives back to the machine, it gives before the promise is settled.
 * @property {() => Uint8Array | undefined} data The next message for the data channel.
 * @property {(message: string | ArrayBuffer, now: number) => void} receiveData
 * @property {(event: any) => void} event Takes what the machine has to tell.
 * @property {() => number | null} [nextTime] When data() is to be asked again, though nothing else happens.
 */

/** Drives one machine to its end. */
export class Driver {
  #machine;
  #channels;
  #work;
  #wake = deferred();
  /** @type {Promise<void> | null} */
  #busy = null;

  /**
   * @param {Session} machine
   * @param {import("./channel.js").Channels} channels
   * @param {Work} work
   */
  constructor(machine, channels, work) {
    this.#machine = machine;
    this.#channels = channels;
    this.#work = work;
  }

  /** Have the machine drained soon. */
  wake() {
    this.#wake.resolve();
  }

  /**
   * Run until the machine has ended, and what was begun is done.
   *
   * @param {AbortSignal} signal Its reason ends it.
   */
  async run(signal) {
    const machine = this.#machine;
    const { control, data } = this.#channels;
    const stop = () => {
      machine.cancel(asFlyxError(signal.reason));
      this.wake();
    };
    if (signal.aborted) stop();
    signal.addEventListener("abort", stop);
    try {
      control.listen(this.#listener((message) => machine.receiveControl(message, now())));
      data.listen(this.#listener((message) => this.#work.receiveData(message, now())));
      while (!machine.ended) {
        this.#guarded(() => this.#drain());
        await this.#wait();
      }
      await this.#finish();
    } finally {
      signal.removeEventListener("abort", stop);
      control.release();
      data.release();
    }
  }

  /** @param {(message: string | ArrayBuffer) => void} receive @returns {import("./channel.js").Listener} */
  #listener(receive) {
    return {
      message: (message) => {
        this.#guarded(() => receive(message));
        this.wake();
      },
      writable: () => this.wake(),
      closed: () => {
        const violation = this.#channels.control.violation ?? this.#channels.data.violation;
        if (violation) this.#machine.cancel(violation);
        else this.#machine.channelClosed(now());
        this.wake();
      },
    };
  }

  /** Do this; what it throws ends the transfer. @param {() => void} work */
  #guarded(work) {
    try {
      work();
    } catch (error) {
      this.#machine.cancel(asFlyxError(error));
      this.wake();
    }
  }

  #drain() {
    const { control, data } = this.#channels;
    fill(control, () => this.#machine.nextControl());
    if (!this.#busy) {
      const begun = this.#work.next();
      if (begun) {
        this.#busy = begun
          .catch((error) => this.#machine.cancel(asFlyxError(error)))
          .finally(() => {
            this.#busy = null;
            this.wake();
          });
      }
    }
    fill(data, () => this.#work.data());
    for (let event; (event = this.#machine.nextEvent());) this.#work.event(event);
  }

  /** Wait for an input or the next deadline. */
  async #wait() {
    const deadline = this.#machine.nextTimeout();
    const due = [deadline, this.#work.nextTime?.()].filter((time) => typeof time === "number");
    const pause = Math.min(...due) - now();
    const timer = due.length ? setTimeout(() => this.wake(), Math.max(0, pause) * 1000) : undefined;
    await this.#wake.promise;
    this.#wake = deferred();
    clearTimeout(timer);
    const time = now();
    if (deadline !== null && time >= deadline) this.#machine.handleTimeout(time);
  }

  /** Let what was begun end, and the other side read our last message: it closes when it has. */
  async #finish() {
    const { control } = this.#channels;
    this.#guarded(() => this.#drain());
    await this.#busy;
    const until = now() + CLOSE_TIMEOUT;
    while (this.#machine.hasLastWord && !control.closed && now() < until) {
      const timer = setTimeout(() => this.wake(), (until - now()) * 1000);
      await this.#wake.promise;
      this.#wake = deferred();
      clearTimeout(timer);
      this.#guarded(() => this.#drain());
    }
  }
}

/** Send while the channel takes and there is something. @param {Channel} channel @param {() => any} next */
function fill(channel, next) {
  while (!channel.closed && channel.writable) {
    const message = next();
    if (message === undefined) return;
    channel.send(message);
  }
}

/** Refuse data from who has none to send. */
export function noData() {
  throw protocolError("data from a receiver");
}
