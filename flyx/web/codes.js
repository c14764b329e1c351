/**
 * Codes as people pass them on, as flyx/client/codes.py, flyx/pairing/words.py and flyx/signaling/codes.py
 * have them: alone, in the URL of a server, or in the command that receives.
 *
 *     ROOM-word-word, or ROOM alone
 *     https://HOST/ROOM#word-word, or https://HOST/#ROOM-word-word
 *     flyx receive --server URL ROOM-word-word
 *
 * The words are behind the #, which is never sent to a server.
 *
 * @module
 */

import { randomBelow } from "./bytes.js";
import { badInput } from "./errors.js";
import { WORDS } from "./wordlist.js";

/** Words of 10 bits each: three tries then find a code once in 350,000 rooms. */
export const DEFAULT_WORDS = 2;

const ROOM_ID_LENGTH = 6;
/** Crockford's base32: no I, L or O, which look like 1 and 0, and no U. */
const ROOM_ID = /^[0-9A-HJKMNP-TV-Z]{6}$/;
/** @type {Record<string, string>} */
const LOOKALIKES = { I: "1", L: "1", O: "0" };

/** What words of one's own must have at least: letters or digits, so many of them different; and at most. */
const MIN_OWN_CHARACTERS = 8;
const MIN_OWN_DISTINCT = 5;
const MAX_OWN_CHARACTERS = 100;

/** Letters of a word from which on it is completed. */
const SHORTEST_START = 3;

const HINT = "a code looks like K7M2QX-lemon-otter: six letters and digits, then words";
const ROOM_HINT = "a room code has 6 letters and digits, for example K7M2QX";
const ORDINALS = ["first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth"];

// Chats make one long dash of two, and quotation marks of their own.
const DASHES = "[-\u2010-\u2015\u2212]{1,2}";
const QUOTES = "\"'`<>\u2018\u2019\u201a\u201c\u201d\u201e\u00ab\u00bb";
const WORD = "[\\p{L}\\p{N}_]";
// Lines above it, a prompt, what runs the program, and where that is may come before the command.
const BEFORE = `(?:[^]*\\n)?(?:(?!${WORD}|\\n)[^])*(?:\\S+[ \\t]+){0,3}(?:\\S*[/\\\\])?`;
const COMMAND = new RegExp(`^${BEFORE}flyx(?:\\.exe)?\\s+(?:receive|recv|rx)(?:\\s+|$)`, "iu");
const SERVER = new RegExp(
  `(?<!\\S)${DASHES}server(?:\\s+|=)[${QUOTES}]*([^\\s${QUOTES}]+)[${QUOTES}]*`,
  "iu",
);
const VARIABLE = new RegExp(`(?<!\\S)FLYX_SERVER=[${QUOTES}]*([^\\s;${QUOTES}]+)`, "u");
const OPTION = /(?<!\S)(?:(?:--|[\u2010-\u2015])[a-z]|-[a-z](?=\s))/i;
const URL_IN_TEXT = new RegExp(`(?:https?|wss?)://[^\\s${QUOTES}]+`, "iu");

/**
 * What a person was given to receive by; no words if the code has none, no server if nothing was said of it.
 *
 * @typedef {{ server: string | null, roomId: string, words: string[] }} Invitation
 */

/**
 * Return what a person meant who typed or pasted this: a code, a URL with a code, or a whole command.
 *
 * @param {string} pasted
 * @returns {Invitation}
 * @throws {FlyxError} `bad_input`: it cannot be any of them. Its text does not repeat it, which may be
 *     secret.
 */
export function parseInvitation(pasted) {
  let text = pasted.replace(/\p{Cf}/gu, "");
  let server = null;
  const command = COMMAND.exec(text);
  if (command) {
    server = VARIABLE.exec(command[0])?.[1] ?? null;
    text = text.slice(command[0].length);
    const option = SERVER.exec(text);
    if (option) {
      server = option[1];
      text = `${text.slice(0, option.index)} ${text.slice(option.index + option[0].length)}`;
    }
    if (OPTION.test(text)) {
      const hint = "paste the code alone, or a command without other options";
      throw badInput("of the options of a pasted command only --server is heeded", hint);
    }
  }
  const url = URL_IN_TEXT.exec(text);
  if (url) {
    const rest = text.slice(url.index + url[0].length);
    const [where, fragment] = cut(url[0], "#");
    const [base, roomId] = roomOfPath(where);
    if (roomId !== null)
      return { server: server ?? base, roomId, words: splitWords(`${unquote(fragment)} ${rest}`) };
    if (!url[0].includes("#") && server === null) {
      const hint = "a URL with a code looks like https://flyx.example.org/K7M2QX#lemon-otter";
      throw badInput("there is no code in this URL", hint);
    }
    server ??= where;
    text = `${unquote(fragment)} ${rest}`;
  }
  return { server, ...parseCode(text) };
}

/** Return a URL without the room that its path ends with, and that; null if it ends otherwise.
 *
 * @param {string} url Without a fragment.
 * @returns {[string, string | null]}
 */
function roomOfPath(url) {
  const path = /^([^/]*\/\/[^/]*\/(?:[^?]*\/)?)([^/?]+)\/?$/.exec(url);
  const roomId = path && roomIdOf(path[2]);
  return roomId ? [path[1], roomId] : [url, null];
}

/** @param {string} text @param {string} separator @returns {[string, string]} */
function cut(text, separator) {
  const at = text.indexOf(separator);
  return at < 0 ? [text, ""] : [text.slice(0, at), text.slice(at + 1)];
}

/** @param {string} text */
function unquote(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

/**
 * Return the room and the words that a person meant; no words if the code has none.
 *
 * The room is the first six characters, which may be in groups ("k7m-2qx"); the words are what follows.
 *
 * @param {string} typed
 * @returns {{ roomId: string, words: string[] }}
 */
function parseCode(typed) {
  const text = separate(typed);
  if (!text.trim()) throw badInput("there is no code", HINT);
  let length = 0;
  let end = 0;
  let wordsAt = null;
  for (const part of text.matchAll(/\S+/gu)) {
    if (wordsAt === null && isAWord(part[0].toLowerCase())) wordsAt = part.index;
    length += [...part[0]].length;
    end = part.index + part[0].length;
    if (length >= ROOM_ID_LENGTH) break;
  }
  if (length > ROOM_ID_LENGTH && wordsAt !== null) {
    // The words have begun before the room was complete.
    end = wordsAt;
    if (!text.slice(0, end).trim()) {
      throw badInput(`the ${ROOM_ID_LENGTH} letters and digits before the words are missing`, HINT);
    }
  }
  return { roomId: normaliseRoomId(text.slice(0, end), HINT), words: splitWords(text.slice(end)) };
}

/**
 * Return the room id that a person meant: lower case, I and L for 1, O for 0, blanks and hyphens are
 * forgiven.
 *
 * @param {string} text
 * @param {string} [hint]
 * @throws {FlyxError} `bad_input`: it cannot be one.
 */
export function normaliseRoomId(text, hint = ROOM_HINT) {
  const compact = text.replace(/[ \t\r\n-]/g, "");
  if (!compact) throw badInput("the room code is empty", hint);
  if (!/^[\0-\x7f]*$/.test(compact)) throw badInput("the room code has a letter outside A-Z", hint);
  const roomId = compact.toUpperCase().replace(/[ILO]/g, (letter) => LOOKALIKES[letter]);
  if (roomId.length !== ROOM_ID_LENGTH) {
    const count = roomId.length === 1 ? "1 character" : `${roomId.length} characters`;
    throw badInput(`the room code has ${count} instead of ${ROOM_ID_LENGTH}`, hint);
  }
  if (!isRoomId(roomId)) throw badInput("the room code has a character that no room code has", hint);
  return roomId;
}

/** Whether this is a room id as the server writes it. @param {string} text */
export const isRoomId = (text) => ROOM_ID.test(text);

/** @param {string} text */
function roomIdOf(text) {
  try {
    return normaliseRoomId(text);
  } catch {
    return null;
  }
}

/** Return text with a space for each mark between or around words, and without invisible ones.
 *
 * @param {string} text
 */
const separate = (text) => text.replace(/\p{Cf}/gu, "").replace(/[\p{P}\p{Z}\p{Cc}\u2212`<>|~]/gu, " ");

/** Return the words of a text in their common form, however they are written and separated.
 *
 * @param {string} text
 */
export function splitWords(text) {
  const folded = caseFold(text.normalize("NFKC")).normalize("NFKC");
  return separate(folded).split(/\s+/u).filter(Boolean);
}

// Of full case folding (Unicode's CaseFolding.txt), what changing the case to and fro does otherwise.
const CHEROKEE = /[\u13a0-\u13f5\u13f8-\u13fd\uab70-\uabbf]/;

/** Return text with the case of all letters folded. @param {string} text */
export function caseFold(text) {
  let folded = "";
  for (const character of text) {
    // Not the dotless i, whose capital is that of i; Cherokee folds to capitals.
    if (character === "\u0131") folded += character;
    else if (CHEROKEE.test(character)) folded += character.toUpperCase();
    else folded += [...character.toLowerCase().toUpperCase()].map((one) => one.toLowerCase()).join("");
  }
  return folded;
}

/** Return so many random words. @param {number} [count] */
export const drawWords = (count = DEFAULT_WORDS) =>
  Array.from({ length: count }, () => WORDS[randomBelow(WORDS.length)]);

/** Return the password that these words are. @param {readonly string[]} words */
export const passwordOf = (words) => words.join("-");

/** Return the code to pass on; the password is empty when it has no words.
 *
 * @param {string} roomId
 * @param {string} password
 */
export const formatCode = (roomId, password) => (password ? `${roomId}-${password}` : roomId);

/** Return the URL that a browser opens to receive.
 *
 * @param {string} server
 * @param {string} roomId
 * @param {string} password
 */
export function invitationUrl(server, roomId, password) {
  const base = server.replace(/^ws(?=s?:)/i, "http").replace(/\/*$/, "");
  return `${base}/${roomId}${password ? `#${encodeURIComponent(password)}` : ""}`;
}

/**
 * Return the words that somebody chose for a code, in their common form.
 *
 * @param {string} text
 * @throws {FlyxError} `bad_input`: they would be easy to guess, or hard to pass on.
 */
export function checkOwnWords(text) {
  const hint =
    `take at least ${MIN_OWN_CHARACTERS} letters or digits, ${MIN_OWN_DISTINCT} of them different, ` +
    "such as three words that nobody connects with you";
  const words = splitWords(text);
  const characters = [...words.join("")];
  if (!/^[\p{L}\p{N}]*$/u.test(words.join("")) || !characters.length) {
    throw badInput("a code is made of words of letters and digits", hint);
  }
  if (characters.length < MIN_OWN_CHARACTERS || new Set(characters).size < MIN_OWN_DISTINCT) {
    throw badInput("this code would be easy to guess", hint);
  }
  if (characters.length > MAX_OWN_CHARACTERS) {
    throw badInput(`a code has at most ${MAX_OWN_CHARACTERS} letters and digits`);
  }
  return words;
}

/**
 * Return the words of the list that a person meant.
 *
 * @param {readonly string[]} typed In their common form.
 * @param {number} count How many the code has.
 * @throws {FlyxError} `bad_input`: there are more or fewer, or one of them is none of the list.
 */
export function resolveWords(typed, count) {
  if (typed.length !== count) {
    const have = typed.length
      ? `${typed.length} ${typed.length === 1 ? "was" : "were"} given`
      : "none was given";
    const wanted = count === 1 ? "1 word" : `${count} words`;
    throw badInput(`the code has ${wanted} after the room's six characters; ${have}`);
  }
  return typed.map(resolveWord);
}

/** @param {string} typed @param {number} position */
function resolveWord(typed, position) {
  if (WORDS.includes(typed)) return typed;
  const completed = completions(typed);
  const candidates = completed.length ? completed : WORDS.filter((word) => isOneTypo(typed, word));
  if (candidates.length === 1) return candidates[0];
  const hint =
    candidates.length && candidates.length <= 4
      ? `did you mean ${candidates.join(" or ")}?`
      : "check its spelling; four letters are enough for any word";
  throw badInput(`the ${ORDINALS[position] ?? "last"} word is none that codes are made of`, hint);
}

/** Whether this is a word of the list, or the beginning of one that can be no other. @param {string} typed */
const isAWord = (typed) => WORDS.includes(typed) || completions(typed).length === 1;

/** @param {string} start */
const completions = (start) =>
  [...start].length >= SHORTEST_START ? WORDS.filter((word) => word.startsWith(start)) : [];

/** Whether one letter inserted, left out, replaced or exchanged with its neighbour makes one the other.
 *
 * @param {string} one
 * @param {string} other
 */
function isOneTypo(one, other) {
  if (Math.abs(one.length - other.length) > 1 || one === other) return false;
  const shorter = Math.min(one.length, other.length);
  let start = 0;
  while (start < shorter && one[start] === other[start]) start++;
  let end = 0;
  while (end < shorter - start && one.at(-1 - end) === other.at(-1 - end)) end++;
  const rest = one.slice(start, one.length - end);
  const otherRest = other.slice(start, other.length - end);
  const exchanged = rest.length === 2 && rest === otherRest[1] + otherRest[0];
  return Math.max(rest.length, otherRest.length) === 1 || exchanged;
}
