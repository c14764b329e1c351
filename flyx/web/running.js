/**
 * What sending and receiving have in common: they fail, and want the computer awake.
 *
 * @module
 */

import { part, say, sentence, show } from "./view.js";

/** What went wrong, by the code of a FlyxError (flyx/docs/scripting.md). */
const TITLES = {
  bad_input: "That cannot be used",
  connection_lost: "The connection is lost",
  interrupted: "Broken off",
  no_space: "There is no room for it",
  no_such_room: "Nobody sends under this code",
  other_version: "The other side is of another version",
  pairing_failed: "The two sides could not be brought together safely",
  pairing_timed_out: "The other side does not answer",
  peer_unreachable: "No way to the other side",
  refused: "The other side has refused",
  declined: "The other side said no",
  room_full: "There are enough receivers already",
  room_lost: "The server has lost the connection",
  sender_left: "The sender has gone",
  server_closed: "The server has closed the connection",
  server_refused: "The server refuses",
  server_unreachable: "The server does not answer",
  storage_error: "It could not be written",
  too_many_tries: "Too many wrong words",
  wrong_words: "The words are wrong",
};

/**
 * Say what went wrong, and what to do about it.
 *
 * @param {Error & { code?: string, hint?: string | null }} error
 */
export function fail(error) {
  part("failed-title").textContent = TITLES[error.code] ?? "That did not work";
  part("failed-reason").textContent = sentence(error.message || String(error));
  part("failed-hint").textContent = sentence(error.hint ?? "");
  show("failed");
  say(`${part("failed-title").textContent}. ${part("failed-reason").textContent}`);
  if (!error.code) console.error(error);
}

/** Keep the computer awake while the page is seen; returns how to let it sleep. */
export async function awake() {
  try {
    const lock = await navigator.wakeLock.request("screen");
    return () => lock.release();
  } catch {
    return () => {};
  }
}
