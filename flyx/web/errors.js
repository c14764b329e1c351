/**
 * What may go wrong, by the codes and words of the command line (flyx/errors.py, flyx/docs/scripting.md).
 *
 * @module
 */

/** What a receiver can do about a code that is good no more. */
export const ASK_FOR_ANOTHER = "ask the sender for a new code";

/** Why something did not work: a stable code for programs, a sentence and perhaps a hint for people. */
export class FlyxError extends Error {
  /**
   * @param {string} code
   * @param {string} message A sentence, with its full stop or without.
   * @param {{ hint?: string | null, cause?: unknown, forPeer?: string }} [more] `forPeer` is what the other
   *     side is told, where the message would show it something of ours.
   */
  constructor(code, message, { hint = null, cause, forPeer = message } = {}) {
    super(message, { cause });
    this.name = "FlyxError";
    this.code = code;
    this.hint = hint;
    this.forPeer = forPeer;
    /** Seconds after which a server may be asked again, as it says itself. */
    this.retryAfter = 0;
  }
}

const VERSIONS = "the two sides may run different versions of flyx";
const RELEASE = "bring both sides to the same release";

/** @param {string} reason @param {unknown} [cause] */
export const mistake = (reason, cause) => new FlyxError("bug", `flyx made a mistake: ${reason}`, { cause });

/** @param {string} reason */
export const protocolError = (reason) =>
  new FlyxError("protocol_error", `The other side broke the protocol: ${reason}`, { hint: VERSIONS });

/** @param {string} reason @param {string | null} [hint] */
export const badInput = (reason, hint = null) => new FlyxError("bad_input", reason, { hint });

/** @param {string} url @param {string} reason */
export const serverUnreachable = (url, reason) =>
  new FlyxError("server_unreachable", `Cannot reach the signaling server ${url}: ${reason}`);

/** @param {string} reason @param {string} [hint] */
export const serverClosed = (reason, hint = "try again in a moment") =>
  new FlyxError("server_closed", `The signaling server closed the connection: ${reason}`, { hint });

/** @param {string} reason */
export const serverRefused = (reason) =>
  new FlyxError("server_refused", `The signaling server refused: ${reason}`);

/** @param {string} reason */
export const serverBroke = (reason) =>
  new FlyxError("server_protocol_error", `The signaling server broke the protocol: ${reason}`, {
    hint: "it may run another version of flyx, or be no flyx server",
  });

/** @param {string} roomId */
export const noSuchRoom = (roomId) =>
  new FlyxError("no_such_room", `No sender is waiting under the code ${roomId}.`, {
    hint: "check the code; it is good only while its sender is there, and only on the same server",
  });

export const senderLeft = () =>
  new FlyxError("sender_left", "The sender left before it came to us.", {
    hint: "ask for a new code, and for as many receivers as there are",
  });

/** @param {string} roomId */
export const roomFull = (roomId) =>
  new FlyxError("room_full", `The room ${roomId} already has as many clients as it may have.`, {
    hint: "try again when another receiver has finished",
  });

/** @param {string} reason @param {string} [hint] */
export const roomLost = (reason, hint = "start again, with a new code") =>
  new FlyxError("room_lost", `The room is gone: ${reason}`, { hint });

/** @param {string} reason */
export const peerUnreachable = (reason) =>
  new FlyxError("peer_unreachable", `No connection to the other side: ${reason}`, {
    hint: "try again, or on another network",
  });

/** @param {string} reason */
export const pairingFailed = (reason) => new FlyxError("pairing_failed", `Pairing failed: ${reason}`);

export const wrongWords = () =>
  new FlyxError("wrong_words", "Pairing failed: the words of the two sides do not match.", {
    hint: "check each word; if the sender saw no try of yours, somebody else answered in its place",
  });

/** @param {number} tries @param {string} [hint] */
export const tooManyTries = (
  tries,
  hint = "somebody may be guessing; begin anew for a new code, with more words",
) =>
  new FlyxError("too_many_tries", `Wrong words were given ${tries} times: the code has stopped working.`, {
    hint,
  });

/** @param {number} count @param {string} [hint] */
export const tooManyUnfinished = (
  count,
  hint = "somebody may be keeping the sender busy; begin anew for a new code",
) =>
  new FlyxError(
    "too_many_unfinished",
    `${count} times in a row a receiver began to pair and did not finish: the code has stopped working.`,
    { hint },
  );

export const connectionMismatch = () =>
  new FlyxError(
    "connection_mismatch",
    "The words are right, but the two sides see different connections: somebody may be in between.",
    { hint: "nothing was sent; do not trust this signaling server or network" },
  );

/** @param {number} theirs @param {number} ours */
export const otherVersion = (theirs, ours) =>
  new FlyxError(
    "other_version",
    `The other side speaks version ${theirs} of flyx's protocol, this one version ${ours}: upgrade ` +
      `${theirs < ours ? "the other side" : "this one"}.`,
    { hint: RELEASE },
  );

/** @param {string} whose @param {readonly string[]} features */
export const missingFeature = (whose, features) =>
  new FlyxError(
    "missing_feature",
    `The two sides cannot work together: ${whose} flyx lacks ${features.join(", ")}.`,
    { hint: RELEASE },
  );

export const noWordsAsked = () =>
  new FlyxError("no_words_asked", "The code has words, but who answered asks for none.", {
    hint: "somebody else may have answered; nothing was received. Ask the sender for its code again",
  });

/** @param {number} seconds */
export const pairingTimedOut = (seconds) =>
  new FlyxError("pairing_timed_out", `Pairing failed: the other side did not answer within ${seconds} s.`);

/** @param {string} reason */
export const interrupted = (reason) =>
  new FlyxError("interrupted", `The transfer was interrupted: ${reason}`, {
    hint: "what has arrived is kept where that is possible",
  });

/** Unlike other interruptions, one that a new connection repairs. @param {string} reason */
export const connectionLost = (reason) =>
  new FlyxError("connection_lost", `The transfer was interrupted: ${reason}`, {
    hint: "what has arrived is kept where that is possible",
  });

/** @param {string} reason */
export const refused = (reason) => new FlyxError("refused", `The transfer was refused: ${reason}`);

export const declined = () => new FlyxError("declined", "The transfer was declined.");

/** @param {string} name @param {string} reason */
export const unsafeName = (name, reason) =>
  new FlyxError("unsafe_name", `The name ${name} is not safe to create: ${reason}.`, {
    hint: "nothing was saved; flyx sends no such names, so ask who sent this what it is",
  });

/** @param {number} failed @param {number} total @param {string} path @param {string} reason */
export const filesFailed = (failed, total, path, reason) =>
  new FlyxError(
    "files_failed",
    `${failed} of ${total} files could not be delivered; the first: ${path} (${reason}).`,
    { hint: "the other files are complete; the missing ones have to be sent again" },
  );

export const streamBegun = () =>
  new FlyxError("stream_begun", "The stream has begun without this receiver.", {
    hint: "the sender's --receivers says how many the stream waits for",
  });

/** @param {string} path */
export const corruptData = (path) =>
  new FlyxError("corrupt_data", `${path} arrived damaged: its SHA-256 is not the sender's.`, {
    hint: "nothing damaged was kept; receive it again to go on from there",
  });

/**
 * Return what an exception of a sink or source is for a person.
 *
 * @param {unknown} error
 * @param {"write" | "read"} action
 * @param {string} path
 */
export function storageError(error, action, path) {
  if (error instanceof FlyxError) return error;
  const reason = error instanceof Error ? error.message || error.name : String(error);
  if (error instanceof Error && error.name === "QuotaExceededError") {
    const hint = "free some space, or choose another place";
    return new FlyxError("no_space", `Not enough space: ${reason}.`, {
      hint,
      cause: error,
      forPeer: "there is not enough space",
    });
  }
  return new FlyxError("storage_error", `Cannot ${action} ${path}: ${reason}`, {
    cause: error,
    forPeer: "it could not read or write where it wanted to",
  });
}

/** Return any exception as a FlyxError: a mistake of ours, if it is none. @param {unknown} error */
export function asFlyxError(error) {
  if (error instanceof FlyxError) return error;
  return mistake(error instanceof Error ? `${error.name}: ${error.message}` : String(error), error);
}
