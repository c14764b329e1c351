/**
 * Entries that a transfer goes without, and why, by the codes of flyx/transfer/left_out.py.
 *
 * @module
 */

export const UNREADABLE = "file_unreadable";
export const CHANGED = "file_changed";
export const NO_LINKS = "links_not_possible";
export const NOT_WRITTEN = "not_written";

/** The words for each code: why an entry is not at the receiver. @type {Record<string, string>} */
const REASONS = {
  file_unreadable: "it could not be read",
  file_changed: "it changed while it was sent",
  file_vanished: "it was not there to be sent",
  name_too_long: "its path is too long or too deep",
  too_large: "it is too large",
  special_file: "it is a device, FIFO or socket",
  state_directory: "flyx keeps its own files under that name",
  link_skipped: "it is a symbolic link",
  link_outside: "it is a symbolic link that leads out of what is sent",
  control_characters: "its name has characters that control a terminal",
  name_not_possible: "the receiver's filesystem cannot have its name",
  names_not_distinct: "the receiver's filesystem cannot tell its name from another's",
  directory_left_out: "the directory that it is in was left out",
  links_not_possible: "the receiver's filesystem has no symbolic links",
  file_left_out: "the file that it is another name of was left out",
  in_the_way: "the receiver has something else under its name",
  not_written: "the receiver could not write it",
  too_large_here: "it is larger than a file can be on the receiver's filesystem",
  not_wanted: "the receiver does not want it",
  already_here: "the receiver has it already",
};

/** Return the words for a code, which may be one of a later version. @param {string} code */
export const reason = (code) => (Object.hasOwn(REASONS, code) ? REASONS[code] : "it was left out");

/** Whether we know this code. @param {string} code */
export const isKnown = (code) => Object.hasOwn(REASONS, code);

/** Reasons that a receiver has who goes without an entry as its person wants it. */
export const NOT_NEEDED = new Set(["not_wanted", "already_here"]);

/** Reasons that are no failure: what is left out for one of them is not meant to be sent at all. */
export const BY_NATURE = new Set([
  ...NOT_NEEDED,
  "special_file",
  "state_directory",
  "link_skipped",
  "link_outside",
]);
