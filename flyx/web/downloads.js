/**
 * What is offered as one download: one file as it is, all else as one archive.
 *
 * @module
 */

import { downloadName } from "./texts.js";

/** Whether it is saved as an archive: one file alone is saved as it is. */
export function isArchive({ entries: [first, ...others] }) {
  return others.length > 0 || first.kind !== "file" || first.path.includes("/");
}

/**
 * The name of the download for what is offered.
 *
 * @param {import("./flyx.js").Manifest} manifest
 */
export function nameFor(manifest) {
  if (!isArchive(manifest)) return downloadName(manifest.entries[0].path);
  return downloadName(manifest.roots.length === 1 ? `${manifest.roots[0]}.zip` : "flyx.zip");
}

/**
 * Have the browser save what the page has.
 *
 * @param {Blob} content
 * @param {string} name
 */
export function save(content, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(content);
  link.download = name;
  link.click();
  // What the browser has begun to save it saves to its end.
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}
