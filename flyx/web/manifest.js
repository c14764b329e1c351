/**
 * What is offered, as flyx/transfer/manifest.py has it: files of blocks of BLOCK_SIZE bytes (the last may be
 * shorter; an empty file has none), directories and links.
 *
 * @module
 */

import { hex, pathSize, utf8 } from "./bytes.js";
import { Sha256 } from "./sha256.js";

/** Bytes in a block; the unit of verification. */
export const BLOCK_SIZE = 1 << 20;

export const MAX_ENTRIES = 1_000_000;
/** Bytes in all paths of one manifest, and in the targets of its symbolic links. */
export const MAX_PATHS_SIZE = 1 << 27;
export const MAX_ROOTS = 100_000;
export const MAX_ROOTS_SIZE = 1 << 22;
/** Bytes in one file, and as many in all: the largest integer that a number holds exactly. */
export const MAX_FILE_SIZE = 2 ** 53;
/** Microseconds from 1970, either way. */
export const MAX_MTIME_US = 2 ** 53;
/** Bytes in a text that is sent as one: a block. */
export const MAX_TEXT_SIZE = BLOCK_SIZE;

/** @typedef {"files" | "stream" | "text"} Content */
/** @typedef {"file" | "directory" | "symbolic_link" | "hard_link"} Kind */

/**
 * One file, directory or link, as it is told.
 *
 * @typedef {object} Row
 * @property {string} path A byte that is no UTF-8 is half a surrogate pair (bytes.js).
 * @property {Kind} kind
 * @property {number} size Bytes of a file; 0 of all others.
 * @property {number} mode Permission bits.
 * @property {number} mtimeUs Microseconds since 1970.
 * @property {string} target Of a symbolic link.
 * @property {number} sameAs Of a hard link, the index of the file that it is another name of.
 */

/** The entries of a manifest, in order; they can be added to, and their id is theirs. */
export class Rows {
  /** @type {Row[]} */
  list = [];
  files = 0;
  bytes = 0;
  /** Distinct first parts of the paths, in order. @type {string[]} */
  roots = [];
  /** Bytes in all paths and targets. */
  pathsSize = 0;
  #knownRoots = new Set();
  #id = new Sha256();

  /** @param {Row} row */
  append(row) {
    this.list.push(row);
    this.#id.update(utf8(rowJson(row)));
    if (row.kind === "file") this.files++;
    this.bytes += row.size;
    this.pathsSize += pathSize(row.path) + pathSize(row.target);
    const root = rootOf(row.path);
    if (!this.#knownRoots.has(root)) {
      this.#knownRoots.add(root);
      this.roots.push(root);
    }
  }

  /** The SHA-256 (hex) that names exactly these entries, with all that they say, as this content.
   *
   * @param {Content} content
   */
  id(content) {
    const id = hex(this.#id.digest());
    return content === "files" ? id : hex(new Sha256().update(utf8(`${content} ${id}`)).digest());
  }
}

/** @param {string} path */
export const rootOf = (path) => path.split("/", 1)[0];

/** What the id of a manifest is the SHA-256 of, for one entry: JSON as Python writes it, in ASCII.
 *
 * @param {Row} row
 */
function rowJson(row) {
  /** @type {(string | number)[]} */
  const values = [row.path, row.kind, row.size, row.mode, row.mtimeUs];
  if (row.kind === "symbolic_link") values.push(row.target);
  else if (row.kind === "hard_link") values.push(row.sameAs);
  const escape = (/** @type {string} */ unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`;
  return `${JSON.stringify(values).replace(/[\u007f-\uffff]/g, escape)}\n`;
}

/** Return how many blocks a file of this size has. @param {number} size */
export const blockCount = (size) => Math.ceil(size / BLOCK_SIZE);

/** Return the times of Rows from those of JavaScript. @param {number} milliseconds */
export function microseconds(milliseconds) {
  const mtimeUs = Math.round(milliseconds * 1000);
  return Math.max(-MAX_MTIME_US, Math.min(mtimeUs || 0, MAX_MTIME_US));
}
