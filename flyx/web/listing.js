/**
 * What a sender offers: the manifest of the sources that a page gives.
 *
 * @module
 */

import { pathSize, utf8 } from "./bytes.js";
import { badInput } from "./errors.js";
import { MAX_ENTRIES, MAX_FILE_SIZE, MAX_TEXT_SIZE, microseconds, Rows } from "./manifest.js";

/** @typedef {import("./flyx.js").Source} Source */
/** @typedef {import("./manifest.js").Row} Row */

/** What receivers take at most, in bytes and directories. */
const MAX_PATH_SIZE = 3072;
const MAX_DEPTH = 128;

/** What a text is called in its manifest. */
const TEXT_NAME = "text";

/** The permission bits of what we send: a page is told none. */
const FILE_MODE = 0o644;
const DIRECTORY_MODE = 0o755;

const STEM_AND_EXTENSION = /^(.+?)((?:\.tar)?\.[\p{L}\p{N}_]{1,16})?$/su;

/**
 * What is offered.
 *
 * @typedef {object} SentManifest
 * @property {string} id
 * @property {"files" | "text"} content
 * @property {readonly Row[]} rows
 * @property {readonly string[]} roots
 * @property {number} files
 * @property {number} bytes
 * @property {readonly Source[]} sources What each of the rows is read from.
 */

/** Finds a path for each source that no other has: people pick files of one name from several places. */
class Names {
  /** By path: whether it is a directory. @type {Map<string, boolean>} */
  #taken = new Map();

  /** @param {string} path @param {boolean} isDirectory */
  find(path, isDirectory) {
    let found = path;
    for (let n = 1; !this.#isFree(found, isDirectory); n++) found = numbered(path, n, isDirectory);
    for (let at = found.indexOf("/"); at > 0; at = found.indexOf("/", at + 1))
      this.#taken.set(found.slice(0, at), true);
    this.#taken.set(found, isDirectory);
    return found;
  }

  /** @param {string} path @param {boolean} isDirectory */
  #isFree(path, isDirectory) {
    // A directory may be named by what is in it before it comes itself; but it comes once.
    return !this.#taken.has(path) || (isDirectory && this.#taken.get(path) === true);
  }
}

/**
 * The n-th variant of a path that is taken.
 *
 * @param {string} path
 * @param {number} n
 * @param {boolean} isDirectory
 */
function numbered(path, n, isDirectory) {
  const at = path.lastIndexOf("/") + 1;
  const name = path.slice(at);
  const [, stem, extension = ""] = (!isDirectory && STEM_AND_EXTENSION.exec(name)) || [name, name];
  return `${path.slice(0, at)}${stem} (${n})${extension}`;
}

/** @param {string} path */
function checkPath(path) {
  const parts = path.split("/");
  if (parts.some((part) => ["", ".", ".."].includes(part)) || path.includes("\0")) {
    throw badInput(`this path cannot be sent: ${path}`);
  }
  if (pathSize(path) > MAX_PATH_SIZE || parts.length > MAX_DEPTH)
    throw badInput(`this path is too long: ${path}`);
}

/**
 * Return the manifest of these sources.
 *
 * @param {readonly Source[]} sources
 * @returns {SentManifest}
 * @throws {FlyxError} `bad_input`: there are none, too many, or one that cannot be sent.
 */
export function manifestOf(sources) {
  if (!sources.length) throw badInput("there is nothing to send");
  if (sources.length > MAX_ENTRIES) throw badInput(`more than ${MAX_ENTRIES} files and directories`);
  const names = new Names();
  const rows = new Rows();
  const read = [];
  const directories = new Set();
  for (const source of sources) {
    const isDirectory = source.kind === "directory";
    // Half a surrogate pair is no character of any name.
    const wanted = source.path.replace(/[\ud800-\udfff]/gu, "\ufffd");
    checkPath(wanted);
    const path = names.find(wanted, isDirectory);
    if (isDirectory && directories.has(path)) continue;
    if (isDirectory) directories.add(path);
    const size = isDirectory ? 0 : (source.size ?? 0);
    if (!Number.isInteger(size) || size < 0 || rows.bytes + size > MAX_FILE_SIZE) {
      throw badInput(`this file cannot be sent: ${path}`);
    }
    const mode = isDirectory ? DIRECTORY_MODE : FILE_MODE;
    const kind = isDirectory ? /** @type {const} */ ("directory") : /** @type {const} */ ("file");
    rows.append({ path, kind, size, mode, mtimeUs: microseconds(source.mtime ?? 0), target: "", sameAs: 0 });
    read.push(source);
  }
  return made(rows, read, "files");
}

/** Return the manifest of a text. @param {string} text @throws {FlyxError} `bad_input` */
export function manifestOfText(text) {
  const bytes = utf8(text);
  if (!bytes.length) throw badInput("the text is empty");
  if (bytes.length > MAX_TEXT_SIZE) throw badInput("the text is longer than 1 MiB; send it as a file");
  const rows = new Rows();
  rows.append({
    path: TEXT_NAME,
    kind: "file",
    size: bytes.length,
    mode: FILE_MODE,
    mtimeUs: 0,
    target: "",
    sameAs: 0,
  });
  const read = async (/** @type {number} */ offset, /** @type {number} */ length) =>
    bytes.slice(offset, offset + length);
  return made(rows, [{ path: TEXT_NAME, size: bytes.length, read }], "text");
}

/** @param {Rows} rows @param {Source[]} sources @param {"files" | "text"} content @returns {SentManifest} */
function made(rows, sources, content) {
  const { list, roots, files, bytes } = rows;
  return { id: rows.id(content), content, rows: list, roots, files, bytes, sources };
}
