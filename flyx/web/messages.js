/**
 * The messages of the control channel: flyx/transfer/messages.py has their grammar.
 *
 * @module
 */

import { canBeOnDisk, pathOfBytes, unbase64, utf8 } from "./bytes.js";
import { protocolError } from "./errors.js";
import {
  hexText,
  integer,
  list,
  nullable,
  one,
  optional,
  parseMessage,
  record,
  row,
  text,
} from "./grammar.js";
import { MAX_ENTRIES, MAX_FILE_SIZE, MAX_MTIME_US, MAX_ROOTS } from "./manifest.js";
import { DIGEST_SIZE } from "./sha256.js";

/** @typedef {import("./manifest.js").Row} Row */

/** Bytes of a message that a peer must accept, and of the longest control message. */
export const MIN_MESSAGE_SIZE = 16_384;

/** Most entries or roots in one message, and rows of others, each of which is bounded in size. */
const PIECE_ITEMS = 500;
const DIGESTS_PER_MESSAGE = 200;
const LEFT_OUT_PER_MESSAGE = 200;
const SAVED_PER_MESSAGE = 2_000;

/** Bytes of a message around its rows, generously. */
const ENVELOPE = 100;

const index = integer(0, MAX_ENTRIES);
const count = integer(0, MAX_FILE_SIZE);
const digest = hexText(DIGEST_SIZE);
const code = text(64, /^[a-z_]+$/);
const rate = integer(1_000, 10 ** 12);
/** @param {unknown} value */
const path = (value) =>
  typeof value === "string" ? text(4096)(value) : record({ base64: text(4096) })(value);
const kind = one("file", "directory", "symbolic_link", "hard_link");
const entry = row(
  path,
  kind,
  integer(0, MAX_FILE_SIZE),
  integer(0, 0o777),
  integer(-MAX_MTIME_US, MAX_MTIME_US),
);

const BOTH = {
  cancel: record({ code, message: text(1000) }),
  ping: record({ token: count }),
  pong: record({ token: count }),
};

/** What a sender says. */
const FROM_SENDER = {
  ...BOTH,
  manifest_start: record({
    manifest_id: digest,
    entries: integer(1, MAX_ENTRIES),
    files: index,
    bytes: count,
    roots: integer(1, MAX_ROOTS),
    holes: optional(count, 0),
    failures: optional(count, 0),
    others: optional(count, 0),
    content: optional(one("files", "stream", "text"), "files"),
    rate: optional(rate),
  }),
  roots: record({ names: list(path, PIECE_ITEMS) }),
  manifest: record({
    first: index,
    entries: list(entry, PIECE_ITEMS),
    targets: optional(list(path, PIECE_ITEMS), []),
  }),
  absent: record({ entries: list(row(path, code), PIECE_ITEMS) }),
  manifest_end: record({}),
  digests: record({ files: list(row(index, nullable(digest)), PIECE_ITEMS, 1) }),
  done: record({}),
};

/** What a receiver says. */
const FROM_RECEIVER = {
  ...BOTH,
  hash_with: record({ algorithm: one("sha256", "blake3") }),
  compare: record({ files: list(index, SAVED_PER_MESSAGE, 1) }),
  left_out: record({ entries: list(row(index, code), PIECE_ITEMS, 1) }),
  kept: record({ files: list(row(index, digest), PIECE_ITEMS, 1) }),
  have: record({ file: index, first: count, sha256: list(digest, PIECE_ITEMS, 1) }),
  go_on: record({ offset: integer(1, MAX_FILE_SIZE) }),
  accept: record({ below: index, rate: optional(rate) }),
  credit: record({ bytes: count, written: count }),
  saved: record({ files: list(index, SAVED_PER_MESSAGE) }),
  complete: record({ files: index, bytes: count, sha256: digest }),
  reject: record({ reason: code }),
};

/**
 * Parse one message of the control channel.
 *
 * @param {unknown} message
 * @param {"sender" | "receiver"} speaker
 * @returns {any}
 * @throws {FlyxError} `protocol_error`: it is too long, not JSON, or not in the grammar.
 */
export function parseControlUntrusted(message, speaker) {
  if (typeof message !== "string") throw protocolError("a binary message on the control channel");
  if (message.length > MIN_MESSAGE_SIZE || utf8(message).length > MIN_MESSAGE_SIZE) {
    throw protocolError("a control message is too long");
  }
  const parsed = parseMessage(message, speaker === "sender" ? FROM_SENDER : FROM_RECEIVER);
  if (!parsed) throw protocolError(`a malformed control message from a ${speaker}`);
  return parsed;
}

/** Return a path from what was told. @param {string | { base64: string }} told */
export function pathTold(told) {
  let found = told;
  if (typeof found !== "string") {
    const bytes = unbase64(found.base64);
    if (!bytes) throw protocolError("a path that is not base64");
    found = pathOfBytes(bytes);
  }
  if (!canBeOnDisk(found)) throw protocolError("a path that cannot be on a disk");
  return found;
}

/** Return the entries that a `manifest` message tells. @param {any} piece @returns {Row[]} */
export function rowsOf(piece) {
  const targets = piece.targets.values();
  const rows = piece.entries.map((/** @type {any} */ told) => rowOf(told, targets));
  if (!targets.next().done) throw protocolError("targets of more links than there are");
  return rows;
}

/** @param {any[]} told @param {Iterator<any>} targets @returns {Row} */
function rowOf([pathTold_, kind, number, mode, mtimeUs], targets) {
  const row = { path: pathTold(pathTold_), kind, size: 0, mode, mtimeUs, target: "", sameAs: 0 };
  if (kind === "file") return { ...row, size: number };
  if (kind === "hard_link") return { ...row, sameAs: number };
  if (number) throw protocolError("a directory or link with a size");
  if (kind === "directory") return row;
  const target = targets.next();
  if (target.done) throw protocolError("a symbolic link without a target");
  return { ...row, target: pathTold(target.value) };
}

/**
 * Split items into pieces that fit into a message. @template T
 *
 * @param {readonly T[]} items
 * @param {number} most
 */
function* pieces(items, most) {
  for (let first = 0; first < items.length; first += most) yield items.slice(first, first + most);
}

/** Split texts of any length, as JSON has them, into pieces that fit. @param {readonly any[]} items */
function* sizedPieces(items) {
  /** @type {any[]} */
  let piece = [];
  let room = MIN_MESSAGE_SIZE - ENVELOPE;
  for (const item of items) {
    const size = utf8(JSON.stringify(item)).length + 1;
    if (piece.length && (size > room || piece.length === PIECE_ITEMS)) {
      yield piece;
      piece = [];
      room = MIN_MESSAGE_SIZE - ENVELOPE;
    }
    piece.push(item);
    room -= size;
  }
  if (piece.length) yield piece;
}

/**
 * Yield the messages that tell a manifest of files and directories.
 *
 * @param {import("./listing.js").SentManifest} manifest
 */
export function* manifestMessages({ id, content, rows, roots, files, bytes }) {
  const counts = { entries: rows.length, files, bytes, roots: roots.length };
  yield { type: "manifest_start", manifest_id: id, ...counts, content };
  for (const names of sizedPieces(roots)) yield { type: "roots", names };
  let first = 0;
  const told = rows.map(({ path, kind, size, mode, mtimeUs }) => [path, kind, size, mode, mtimeUs]);
  for (const entries of sizedPieces(told)) {
    yield { type: "manifest", first, entries };
    first += entries.length;
  }
  yield { type: "manifest_end" };
}

/** @param {readonly [number, string | null][]} rows */
export function* digestMessages(rows) {
  for (const files of pieces(rows, DIGESTS_PER_MESSAGE)) yield { type: "digests", files };
}

/** @param {readonly [number, string][]} rows */
export function* leftOutMessages(rows) {
  for (const entries of pieces(rows, LEFT_OUT_PER_MESSAGE)) yield { type: "left_out", entries };
}

/** @param {readonly number[]} indexes */
export function* savedMessages(indexes) {
  for (const files of pieces(indexes, SAVED_PER_MESSAGE)) yield { type: "saved", files };
}

/**
 * What is here of an entry from an earlier try, by hex digests: of a file that is complete its own, else
 * those of its blocks.
 *
 * @typedef {{ file: number, digest: string } | { file: number, blocks: readonly string[] }} Found
 */

/**
 * Yield the messages that accept all entries: what is left out or there already, then that the rest may be
 * sent.
 *
 * @param {number} below
 * @param {readonly Found[]} found In the order of the manifest.
 * @param {readonly [number, string][]} leftOut
 * @param {number} streamOffset How much of a stream is here.
 */
export function* acceptMessages(below, found, leftOut, streamOffset) {
  yield* leftOutMessages(leftOut);
  /** @type {[number, string][]} */
  let kept = [];
  for (const one of found) {
    if ("digest" in one) kept.push([one.file, one.digest]);
    if (kept.length && (!("digest" in one) || kept.length === DIGESTS_PER_MESSAGE)) {
      yield { type: "kept", files: kept };
      kept = [];
    }
    if ("blocks" in one) {
      let first = 0;
      for (const sha256 of pieces(one.blocks, DIGESTS_PER_MESSAGE)) {
        yield { type: "have", file: one.file, first, sha256 };
        first += sha256.length;
      }
    }
  }
  if (kept.length) yield { type: "kept", files: kept };
  if (streamOffset) yield { type: "go_on", offset: streamOffset };
  yield { type: "accept", below };
}
