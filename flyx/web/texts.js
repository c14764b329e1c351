/**
 * What the page says about sizes, times, paths and names, in the words of the command line.
 *
 * @module
 */

const UNITS = ["kB", "MB", "GB", "TB", "PB", "EB"];

/** Bytes that a name in a download may have: browsers cut or refuse longer ones. */
const LONGEST_NAME = 240;

/** Bytes of an extension that a name keeps when it is cut. */
const LONGEST_EXTENSION = 20;

const encoder = new TextEncoder();

/**
 * A size as people write it: three digits, in powers of 1,000, such as 12.3 MB.
 *
 * @param {number} size Bytes.
 */
export function sizeText(size) {
  if (size < 1000) return size === 1 ? "1 byte" : `${Math.round(size)} bytes`;
  let value = size / 1000;
  let unit = 0;
  // What is rounded to 1,000 is 1 of the next unit.
  while (value >= 999.5 && unit < UNITS.length - 1) {
    value /= 1000;
    unit += 1;
  }
  const digits = value < 9.995 ? 2 : value < 99.95 ? 1 : 0;
  return `${grouped(value.toFixed(digits))} ${UNITS[unit]}`;
}

/**
 * A number with a comma between its thousands.
 *
 * @param {number | string} number
 */
export function grouped(number) {
  return String(number).replace(/\B(?=(\d{3})+(?!\d))/g, ",");
}

/**
 * How much is offered, such as "3 files, 12.5 MB".
 *
 * @param {{ files: number, directories: number, bytes: number }} amount
 */
export function amountText({ files, directories, bytes }) {
  const parts = [];
  if (files || !directories) parts.push(files === 1 ? "1 file" : `${grouped(files)} files`);
  if (directories && !files) parts.push(directories === 1 ? "1 folder" : `${grouped(directories)} folders`);
  return [...parts, sizeText(bytes)].join(", ");
}

/**
 * A time that is left or was taken, such as "2 min 5 s".
 *
 * @param {number} seconds
 */
export function durationText(seconds) {
  if (seconds < 10 && !Number.isInteger(seconds)) return `${seconds.toFixed(1)} s`;
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  return `${grouped(Math.floor(whole / 3600))} h ${Math.floor((whole % 3600) / 60)} min`;
}

/**
 * How long so many bytes took, to follow what was done with them.
 *
 * @param {number} bytes
 * @param {number} seconds
 */
export function speedText(bytes, seconds) {
  return seconds > 0.001 ? ` in ${durationText(seconds)}, ${sizeText(bytes / seconds)}/s` : "";
}

/**
 * Which way the bytes take, to follow "Connected".
 *
 * @param {{ local: string | null, remote: string | null, rtt?: number | null }} path
 */
export function pathText({ local, remote, rtt }) {
  const time = rtt ? `, ${(rtt * 1000).toFixed(1)} ms there and back` : "";
  if (local === "relay" || remote === "relay") return `through a relay, which cannot read it${time}`;
  if (local === "host" && remote === "host") return `directly over the local network${time}`;
  if (local === null && remote === null) return "by a path that the browser does not tell";
  return `directly${time}`;
}

/**
 * A name that every file system and browser takes for a download.
 *
 * It is one part of a path, safe already (flyx.js, Entry). Browsers remove a dot at its beginning and cut, or
 * refuse, what is too long, so that is done here, where the page can tell of it.
 *
 * @param {string} name
 */
export function downloadName(name) {
  const visible = name.replace(/^[.\s]+/, "") || "file";
  if (encoder.encode(visible).length <= LONGEST_NAME) return visible;
  const dot = visible.lastIndexOf(".");
  const end = dot > 0 ? visible.slice(dot) : "";
  const extension = encoder.encode(end).length <= LONGEST_EXTENSION ? end : "";
  const stem = visible.slice(0, visible.length - extension.length);
  return cut(stem, LONGEST_NAME - encoder.encode(extension).length) + extension;
}

/**
 * The beginning of a text that has at most so many bytes, without half a character.
 *
 * @param {string} text
 * @param {number} size
 */
function cut(text, size) {
  let kept = "";
  for (const character of text) {
    size -= encoder.encode(character).length;
    if (size < 0) break;
    kept += character;
  }
  return kept;
}

/**
 * A name that none of the others is, with a number if it must be: "photos (2)", "notes (2).txt".
 *
 * @param {string} name
 * @param {(name: string) => boolean} isTaken
 */
export function freeName(name, isTaken) {
  for (let number = 1; ; number += 1) {
    const tried = number === 1 ? name : numbered(name, number);
    if (!isTaken(tried)) return tried;
  }
}

/**
 * @param {string} name
 * @param {number} number
 */
export function numbered(name, number) {
  const dot = name.lastIndexOf(".");
  return dot > 0 ? `${name.slice(0, dot)} (${number})${name.slice(dot)}` : `${name} (${number})`;
}

/** Names that programs act on unasked begin with a dot, or are in a folder whose name does. */
export function isHidden(path) {
  return path.startsWith(".") || path.includes("/.");
}
