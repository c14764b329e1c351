/**
 * Waiting: a promise that others settle, pauses, and limits of time.
 *
 * @module
 */

/** Seconds for which a lost connection is made anew, unless the page says otherwise. */
export const RECONNECT_TIME = 7200;

/** Seconds that only grow; in sleep they may stand still. */
export const now = () => performance.now() / 1000;

/** @param {number} seconds */
export const sleep = (seconds) => new Promise((resolve) => setTimeout(resolve, seconds * 1000));

/** A promise, and what settles it. Nobody need wait for it. */
export function deferred() {
  /** @type {(value?: any) => void} */
  let resolve = () => {};
  /** @type {(reason: unknown) => void} */
  let reject = () => {};
  const promise = new Promise((yes, no) => {
    resolve = yes;
    reject = no;
  });
  promise.catch(() => {});
  return { promise, resolve, reject };
}

/**
 * Wait for a promise, but not longer than so many seconds, nor than the signal allows.
 *
 * @template T
 * @param {Promise<T>} promise
 * @param {number | null} seconds null: as long as it takes.
 * @param {unknown} late What it rejects with then.
 * @param {AbortSignal} [signal] Its reason is what it rejects with.
 * @returns {Promise<T>}
 */
export async function timeLimit(promise, seconds, late, signal) {
  const limit = deferred();
  const abort = () => limit.reject(signal?.reason);
  const timer = seconds === null ? undefined : setTimeout(() => limit.reject(late), seconds * 1000);
  if (signal?.aborted) abort();
  signal?.addEventListener("abort", abort, { once: true });
  try {
    return await Promise.race([promise, limit.promise]);
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener("abort", abort);
  }
}
