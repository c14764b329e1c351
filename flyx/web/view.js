/**
 * What the page shows: one section at a time, and what is read out to who cannot see it. Text of other people
 * gets into it as text alone, never as markup.
 *
 * @module
 */

/** @param {string} id */
export function part(id) {
  return /** @type {any} */ (document.getElementById(id));
}

/** Show one of the sections, with its heading in focus, where reading goes on. */
export function show(id) {
  for (const section of document.querySelectorAll("main > [id]:not(#status)")) section.hidden = section.id !== id;
  const heading = part(id).querySelector("h1");
  document.title = `${heading.textContent} – flyx`;
  heading.focus({ preventScroll: true });
  window.scrollTo(0, 0);
}

/** Whether this section is the one that is shown. */
export function shows(id) {
  return !part(id).hidden;
}

/** Have it read out, when there is nothing more urgent. */
export function say(text) {
  part("status").textContent = text;
}

/** Have it read out, and seen until something else is shown. */
export function notify(text) {
  say(text);
  tell("notice", text);
}

/** Set the text of a part, which is not there without any. */
export function tell(id, text) {
  part(id).textContent = text;
  part(id).hidden = !text;
}

/** Fill a list with items, which are texts, or nodes. */
export function fill(list, items) {
  list.replaceChildren(...items.map((item) => element("li", {}, ...[item].flat())));
}

/**
 * @param {string} tag
 * @param {Record<string, any>} properties
 * @param {...(Node | string)} children
 */
export function element(tag, properties, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

/** A name of the other side, readable whatever it is written in. */
export function pathNode(path) {
  return element("span", { className: "path", dir: "auto" }, visible(path));
}

/** A text without what changes the direction of reading, or cannot be seen. */
export function visible(text) {
  return text.replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu, "\ufffd");
}

/** A sentence for what a FlyxError says, which begins small and has no full stop. */
export function sentence(text) {
  return text ? `${text[0].toUpperCase()}${text.slice(1)}${/[.!?]$/.test(text) ? "" : "."}` : "";
}

/** Put a text on the clipboard. */
export async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    say("Copied.");
    return true;
  } catch {
    say("The browser does not let this page copy: select the text and copy it yourself.");
    return false;
  }
}
