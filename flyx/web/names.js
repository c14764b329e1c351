/**
 * What the entries of a sender are called here: the only judge of names, as flyx/transfer/names.py is.
 *
 * A name that could lead out of where things are saved ends the transfer: no honest sender offers one. All
 * others are made such that any system can have them, since a page does not know on which filesystem they end
 * up.
 *
 * @module
 */

import { canBeOnDisk, pathSize, readable } from "./bytes.js";
import { caseFold } from "./codes.js";
import { unsafeName } from "./errors.js";

/** Bytes in a part of a path: browsers refuse downloads with names of more than 244. */
const MAX_PART_SIZE = 240;
const MAX_PATH_SIZE = 3072;
const MAX_DEPTH = 128;

// What a terminal acts on, or what changes the direction or the lines of the text around it.
const CONTROLS = /[\0-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\u2028\u2029]/g;
// What Windows, and what is made for it, cannot have in a name.
const ODD = /[<>:"|?*\\]/g;
// Windows finds the device whatever the case, the extension, and the spaces between the two.
const DEVICE = /^(?:con|prn|aux|nul|conin\$|conout\$|(?:com|lpt)[0-9¹²³]) *(?:[.:]|$)/i;
// Where the command line keeps what is not complete.
const STATE_DIRECTORY = /^(?:\.flyx(?:-[0-9a-f]+)?[. ]*|flyx(?:-[0-9a-f]*)?~[0-9]+)$/i;
const IGNORABLE = /\p{Default_Ignorable_Code_Point}/gu;
// The extension of a name: ".jpg", ".tar.gz"; not "." or ".bashrc", which are all name.
const STEM_AND_EXTENSION = /^(.+?)((?:\.tar)?\.[\p{L}\p{N}_]{1,16})?$/su;

/**
 * Check that a path stays below wherever it is put.
 *
 * @param {string} path
 * @throws {FlyxError} `unsafe_name`
 */
function checkPath(path) {
  const parts = path.split("/");
  const fault =
    (!path && "it is empty") ||
    (!canBeOnDisk(path) && "it has a NUL, or half of a character") ||
    (path[0] === "/" && "it is an absolute path") ||
    (parts.includes("") && "a part of its path is empty") ||
    (parts.includes(".") && 'its path has a part "."') ||
    (parts.includes("..") && 'its path has a part ".."') ||
    ((pathSize(path) > MAX_PATH_SIZE || parts.length > MAX_DEPTH) &&
      `its path is longer than ${MAX_PATH_SIZE} bytes, or more than ${MAX_DEPTH} directories deep`);
  if (fault) throw unsafeName(readable(path), fault);
  return parts;
}

/**
 * Return a name that any system can have in the place of this one.
 *
 * @param {string} name
 * @param {boolean} isDirectory
 */
function safe(name, isDirectory) {
  let made = readable(name).replaceAll("\ufffd", "_").replace(ODD, "_").replace(CONTROLS, "_");
  // What ends with a dot or a blank is one of those that Windows drops.
  made = made.replace(/[. ]+$/, (end) => "_".repeat(end.length));
  const visible = made.replace(IGNORABLE, "").normalize("NFKC");
  if (DEVICE.test(made) || STATE_DIRECTORY.test(visible)) made = `_${made}`;
  return withEnding(made, "", isDirectory);
}

/** Return a name with this before its extension, its stem shortened as is needed.
 *
 * @param {string} name
 * @param {string} ending
 * @param {boolean} isDirectory
 */
function withEnding(name, ending, isDirectory) {
  const [, stem, extension = ""] = (!isDirectory && STEM_AND_EXTENSION.exec(name)) || [name, name];
  const room = MAX_PART_SIZE - pathSize(ending + extension);
  if (pathSize(stem) <= room) return stem + ending + extension;
  let kept = "";
  let size = 0;
  for (const character of stem) {
    size += pathSize(character);
    if (size > room) break;
    kept += character;
  }
  return kept.replace(/[ \u200d]+$/, "") + ending + extension;
}

/** What names have in common that some filesystem takes for one (Unicode 3.13, D145). @param {string} name */
const fold = (name) => caseFold(name.normalize("NFD")).normalize("NFD");

/** A directory: by the name that the sender has for them, what is in it. */
class Directory {
  /** @type {Map<string, Directory | null>} */
  inside = new Map();
  /** Names that are taken, folded; how many have been numbered for each. @type {Map<string, number>} */
  taken = new Map();
  /** It has an entry of its own. */
  isListed = false;

  /** @param {string} path Where it is here. */
  constructor(path) {
    this.path = path;
  }

  /**
   * Return a path below this directory that nothing else has.
   *
   * @param {string} name
   * @param {boolean} isDirectory
   */
  place(name, isDirectory) {
    const wanted = safe(name, isDirectory);
    let found = wanted;
    const key = fold(wanted);
    for (let n = this.taken.get(key) ?? 0; this.taken.has(fold(found));) {
      found = withEnding(wanted, ` (${++n})`, isDirectory);
      this.taken.set(key, n);
    }
    this.taken.set(fold(found), 0);
    return this.path ? `${this.path}/${found}` : found;
  }
}

/** Finds a path here for each entry of a manifest, one after another. */
export class Places {
  #top = new Directory("");

  /**
   * Return where an entry goes.
   *
   * @param {string} told Its path.
   * @param {boolean} isDirectory
   * @throws {FlyxError} `unsafe_name`
   */
  find(told, isDirectory) {
    const parts = checkPath(told);
    const name = /** @type {string} */ (parts.pop());
    let above = this.#top;
    for (const part of parts) above = this.#enter(above, part, told);
    if (isDirectory) {
      const directory = this.#enter(above, name, told);
      if (directory.isListed) throw unsafeName(readable(told), "it is listed twice");
      directory.isListed = true;
      return directory.path;
    }
    if (above.inside.has(name)) {
      const isTwice = above.inside.get(name) === null;
      throw unsafeName(
        readable(told),
        isTwice ? "it is listed twice" : `${readable(name)} would be both a file and a directory`,
      );
    }
    above.inside.set(name, null);
    return above.place(name, false);
  }

  /** @param {Directory} above @param {string} name @param {string} told */
  #enter(above, name, told) {
    let directory = above.inside.get(name);
    if (directory === null) {
      throw unsafeName(readable(told), `${readable(name)} would be both a file and a directory`);
    }
    if (!directory) {
      directory = new Directory(above.place(name, true));
      above.inside.set(name, directory);
    }
    return directory;
  }
}
