/**
 * What sending and receiving have in common from their beginning to their end.
 *
 * @module
 */

import { asFlyxError, interrupted } from "./errors.js";

/**
 * Do work until it is done or the signal of its options stops it, and tell how it failed.
 *
 * @template T
 * @param {{ on: (event: import("./flyx.js").Event) => void, signal?: AbortSignal }} options
 * @param {(signal: AbortSignal) => Promise<T>} work Its signal's reason is a FlyxError.
 * @returns {Promise<T>}
 * @throws {FlyxError}
 */
export async function untilStopped({ on, signal }, work) {
  const stopped = new AbortController();
  const stop = () => stopped.abort(interrupted("it was stopped"));
  if (signal?.aborted) stop();
  signal?.addEventListener("abort", stop, { once: true });
  try {
    return await work(stopped.signal);
  } catch (error) {
    const failure = asFlyxError(error);
    on({ event: "error", code: failure.code, message: failure.message, hint: failure.hint });
    throw failure;
  } finally {
    signal?.removeEventListener("abort", stop);
  }
}
