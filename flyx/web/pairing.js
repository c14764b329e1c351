/**
 * Greeting and pairing of a sender with one receiver: CPace, bound to the connection, with key confirmation.
 * flyx/pairing/exchange.py says what is proved and why; flyx/pairing/messages.py has the grammar.
 *
 * Each side runs one function over the two channels of a new connection. When it is done, what comes next on
 * them is the transfer's.
 *
 * @module
 */

import { areEqual, concat, hex, randomBytes, unhex, utf8 } from "./bytes.js";
import {
  calculateGenerator,
  FIELD_SIZE,
  intermediateSessionKey,
  lvCat,
  scalarMultVfy,
  transcriptIr,
} from "./cpace.js";
import * as errors from "./errors.js";
import { hexText, integer, list, one, optional, parseMessage, record, text } from "./grammar.js";

/** @typedef {errors.FlyxError} FlyxError */
/** @typedef {import("./channel.js").Channels} Channels */
/** @typedef {"sender" | "receiver"} Role */

/** Of everything that two peers say to each other, the transfer included. */
const VERSION = 2;

/** Characters in a message. */
const MAX_SIZE = 4_000;

const NONCE_SIZE = 16;
const MAX_WORDS = 8;

/** Seconds for each answer that no person has to think about, and for a person to type the words. */
const STEP_TIMEOUT = 20;
const WORDS_TIMEOUT = 60;

/** Seconds that the other side gets to read why we reject it. */
const CLOSE_TIMEOUT = 2;

/** Wrong words in one room, and exchanges in a row without a proof, until it is closed. */
export const MAX_TRIES = 3;
const MAX_UNFINISHED = 64;

const EARLY_SHARE = "early-share";
/** What we can do beyond the version: take streams and texts. */
const FEATURES = ["streams", "texts"];
const AGENT = "flyx/web";
const LABEL = utf8("flyx pairing");

const features = list(text(32, /^[a-z0-9-]{1,32}$/), 32);
const GRAMMAR = {
  hello: record({
    version: integer(VERSION, VERSION),
    agent: text(64),
    nonce: hexText(NONCE_SIZE),
    features: optional(features, []),
    needs: optional(features, []),
    code: optional(one("words", "own", "open")),
    words: optional(integer(0, MAX_WORDS), 0),
    share: optional(hexText(FIELD_SIZE)),
    session: optional(hexText(16)),
  }),
  pake: record({ share: hexText(FIELD_SIZE) }),
  confirm: record({ words: hexText(32), connection: hexText(32) }),
  reject: record({ reason: text(64, /^[a-z_]+$/) }),
};
const OTHER_HELLO = { hello: record({ version: integer(1, 2 ** 31) }) };

/**
 * What both sides must see alike: the room, and the SHA-256 of both DTLS certificates.
 *
 * @typedef {object} Binding
 * @property {string} roomId
 * @property {Record<Role, Uint8Array>} fingerprints
 */

/**
 * A pairing that was made: it takes the place of the words over a later connection in the same room.
 *
 * @typedef {{ id: string, key: Uint8Array }} Session
 */

/**
 * @typedef {object} Paired
 * @property {Session | null} session null: the sender's code has no words.
 * @property {Set<string>} features What both sides can do beyond the version.
 */

/**
 * A sender's code: of `words` many words of the list, of its own, or none at all.
 *
 * @typedef {{ kind: "words" | "own" | "open", words: number, password: string }} Code
 */

/** What the receivers of one room may cost its sender until it closes the room (flyx/pairing/tries.py). */
export class Tries {
  // Wrong words so far, and exchanges without a proof since the last success.
  failed = 0;
  unfinished = 0;

  /** Why the room is closed; null: it is open. What has closed stays closed. @returns {FlyxError | null} */
  refusal() {
    if (this.failed >= MAX_TRIES) return errors.tooManyTries(this.failed);
    if (this.unfinished >= MAX_UNFINISHED) return errors.tooManyUnfinished(this.unfinished);
    return null;
  }

  countWrongWords() {
    if (!this.refusal()) this.failed++;
    return this.refusal() ?? errors.wrongWords();
  }

  /** @param {FlyxError} error */
  countUnfinished(error) {
    if (!this.refusal()) this.unfinished++;
    return this.refusal() ?? error;
  }

  countSuccess() {
    if (!this.refusal()) this.unfinished = 0;
  }
}

/** The other side has ended it, or is gone: it is told nothing. */
class Over extends Error {
  /** @param {FlyxError} error */
  constructor(error) {
    super(error.message);
    this.error = error;
  }
}

/** What one end says and hears, and what is computed of it. */
class Exchange {
  /**
   * @param {Role} role
   * @param {Channels} channels
   * @param {Binding} binding
   * @param {AbortSignal} signal Ends it; its reason is a FlyxError.
   * @param {(size: number) => Uint8Array} entropy
   */
  constructor(role, channels, binding, signal, entropy) {
    this.role = role;
    /** @type {Role} */
    this.other = role === "sender" ? "receiver" : "sender";
    this.control = channels.control;
    this.data = channels.data;
    this.binding = binding;
    this.signal = signal;
    this.entropy = entropy;
    this.nonces = /** @type {Record<Role, Uint8Array>} */ ({ [role]: entropy(NONCE_SIZE) });
    // For a single share.
    this.scalar = entropy(FIELD_SIZE);
    // As they were said, bound into the proofs.
    this.hellos = /** @type {Record<Role, Uint8Array>} */ ({});
    this.shares = /** @type {Record<Role, Uint8Array>} */ ({});
    // The sender's share is the one in its hello.
    this.early = false;
    this.features = /** @type {Set<string>} */ (new Set());
    // Nothing more is said or heard.
    this.over = false;
    // Rejects when something ends it from outside.
    this.ending = new Promise((_, reject) => {
      const stop = () => reject(signal.reason);
      signal.addEventListener("abort", stop, { once: true });
      if (signal.aborted) stop();
      this.data.listen({
        message: () => reject(errors.protocolError("data before pairing")),
        closed: () => reject(new Over(this.lost())),
      });
    });
    this.ending.catch(() => {});
  }

  lost() {
    return (
      this.control.violation ?? errors.peerUnreachable(`it was lost before the ${this.other} had paired`)
    );
  }

  /** @param {object} message */
  say(message) {
    const said = JSON.stringify(message);
    if (!this.over) this.control.send(said);
    return said;
  }

  /** Greet with the fields that are our role's alone. @param {object} about */
  greet(about) {
    const hello = {
      type: "hello",
      version: VERSION,
      agent: AGENT,
      nonce: hex(this.nonces[this.role]),
      features: FEATURES,
      needs: [],
      words: 0,
      ...about,
    };
    this.ourFeatures = hello.features;
    this.hellos[this.role] = utf8(this.say(hello));
  }

  /**
   * Return the next message, which must be of this type.
   *
   * @param {string} type
   * @param {number} seconds
   * @returns {Promise<any>}
   */
  async hear(type, seconds) {
    let timer;
    const late = new Promise((_, reject) => {
      timer = setTimeout(() => reject(errors.pairingTimedOut(seconds)), seconds * 1000);
    });
    try {
      return await Promise.race([this.heard(type), late, this.ending]);
    } finally {
      clearTimeout(timer);
      this.control.release();
    }
  }

  /** @param {string} type @returns {Promise<any>} */
  async heard(type) {
    const raw = await new Promise((resolve, reject) => {
      if (this.over) return;
      this.control.listen({
        message: (message) => {
          // One at a time: what follows may be the transfer's.
          this.control.release();
          resolve(message);
        },
        closed: () => reject(new Over(this.lost())),
      });
    });
    const message = parseUntrusted(raw);
    if (message.type === "reject") throw new Over(errorOfReject(message.reason, this.role));
    if (message.type !== type) throw errors.protocolError(`${message.type} out of place`);
    return { ...message, raw };
  }

  /** Take the hello of the other side. @param {any} hello */
  takeHello(hello) {
    this.hellos[this.other] = utf8(hello.raw);
    this.nonces[this.other] = unhex(hello.nonce);
    const lacking = hello.needs.filter((/** @type {string} */ need) => !this.ourFeatures?.includes(need));
    if (lacking.length) throw errors.missingFeature("this", lacking.sort());
    this.features = new Set(
      hello.features.filter((/** @type {string} */ one) => this.ourFeatures?.includes(one)),
    );
  }

  get sid() {
    return this.early ? this.nonces.sender : concat([this.nonces.sender, this.nonces.receiver]);
  }

  /** @param {Uint8Array} password */
  async makeShare(password) {
    const ci = lvCat(LABEL, utf8(String(VERSION)), utf8(this.binding.roomId));
    const generator = await calculateGenerator(password, ci, this.sid);
    this.shares[this.role] = await scalarMultVfy(this.scalar, generator);
    return hex(this.shares[this.role]);
  }

  /**
   * Return what X25519 makes of the share of the other side; as secret as the password.
   *
   * @param {string} share
   */
  takeShare(share) {
    this.shares[this.other] = unhex(share);
    return scalarMultVfy(this.scalar, this.shares[this.other]);
  }

  /** @param {Uint8Array} shared */
  async makeKeys(shared) {
    const exchange = transcriptIr(this.shares.receiver, utf8("receiver"), this.shares.sender, utf8("sender"));
    const isk = await intermediateSessionKey(this.sid, shared, exchange);
    const { roomId, fingerprints } = this.binding;
    const connection = lvCat(
      LABEL,
      utf8(roomId),
      fingerprints.sender,
      fingerprints.receiver,
      this.hellos.sender,
      this.hellos.receiver,
      exchange,
    );
    return new Keys(await hmac(LABEL, isk), exchange, connection);
  }

  /** @param {Keys} keys */
  async sayConfirm(keys) {
    const [words, connection] = await keys.proofs(this.role);
    this.say({ type: "confirm", words: hex(words), connection: hex(connection) });
  }

  /** Whether the other side's proofs are right: of the words, of the connection.
   *
   * @param {any} confirm
   * @param {Keys} keys
   */
  async verify(confirm, keys) {
    const [words, connection] = await keys.proofs(this.other);
    return [areEqual(words, unhex(confirm.words)), areEqual(connection, unhex(confirm.connection))];
  }

  /** Run this to its end; tell the other side if it fails here. @param {() => Promise<Paired>} steps */
  async run(steps) {
    try {
      // Whatever is computed meanwhile, what ends it ends it.
      return await Promise.race([steps(), /** @type {Promise<never>} */ (this.ending)]);
    } catch (error) {
      if (error instanceof Over) throw error.error;
      const failure = errors.asFlyxError(error);
      this.data.release();
      this.say({ type: "reject", reason: failure.code });
      this.over = true;
      await this.control.whenClosed(CLOSE_TIMEOUT);
      throw failure;
    } finally {
      this.over = true;
      this.control.release();
      this.data.release();
    }
  }
}

/** The keys of one exchange (flyx/pairing/keys.py). */
class Keys {
  #key;
  #exchange;
  #connection;

  /** @param {Uint8Array} key @param {Uint8Array} exchange @param {Uint8Array} connection Transcripts. */
  constructor(key, exchange, connection) {
    this.#key = key;
    this.#exchange = exchange;
    this.#connection = connection;
  }

  /** Proofs that this side used the words, and that it sees the whole transcript. @param {Role} prover */
  async proofs(prover) {
    return [
      await hmac(await this.#derive(`words ${prover}`), this.#exchange),
      await hmac(await this.#derive(`connection ${prover}`), this.#connection),
    ];
  }

  /** @returns {Promise<Session>} */
  async session() {
    const name = await hmac(await this.#derive("session id"), this.#connection);
    const key = await hmac(await this.#derive("session key"), this.#connection);
    return { id: hex(name).slice(0, 32), key };
  }

  /** @param {string} purpose */
  #derive(purpose) {
    return hmac(this.#key, concat([utf8(purpose), Uint8Array.of(1)]));
  }
}

/** @param {Uint8Array} key @param {Uint8Array} message */
async function hmac(key, message) {
  const algorithm = { name: "HMAC", hash: "SHA-256" };
  const [raw, data] = /** @type {BufferSource[]} */ ([key, message]);
  const imported = await crypto.subtle.importKey("raw", raw, algorithm, false, ["sign"]);
  return new Uint8Array(await crypto.subtle.sign("HMAC", imported, data));
}

/**
 * Pair with a receiver, as the sender.
 *
 * @param {Channels} channels
 * @param {object} how
 * @param {Binding} how.binding
 * @param {Code} how.code
 * @param {Tries} how.tries Of the room.
 * @param {Map<string, Session>} how.sessions Earlier pairings in this room, by id; the new one is added.
 * @param {boolean} [how.isText] What is sent is a text, which the receiver must be capable of.
 * @param {AbortSignal} how.signal
 * @param {(size: number) => Uint8Array} [how.entropy]
 * @returns {Promise<Paired>}
 */
export async function pairAsSender(channels, how) {
  const { binding, code, tries, sessions, isText, signal, entropy = randomBytes } = how;
  const exchange = new Exchange("sender", channels, binding, signal, entropy);
  const password = utf8(code.password);
  // We have answered the receiver's share, and it has not proved yet to know the words.
  let awaitsProof = false;
  /** @type {Session | undefined} */
  let session;

  const checkTries = () => {
    // A session's key is not to be guessed, and a receiver that has paired is no stranger.
    const refusal = session ? null : tries.refusal();
    if (refusal) throw refusal;
  };

  const steps = async () => {
    exchange.early = code.kind !== "open";
    const share = exchange.early ? await exchange.makeShare(password) : undefined;
    const needs = isText ? ["texts"] : [];
    exchange.greet({ code: code.kind, words: code.words, share, needs });
    const hello = await exchange.hear("hello", STEP_TIMEOUT);
    exchange.takeHello(hello);
    const lacking = needs.filter((need) => !hello.features.includes(need));
    if (lacking.length) throw errors.missingFeature("the other", lacking);
    if (hello.code !== undefined) throw errors.protocolError("a second sender");
    if (code.kind === "open") return { session: null, features: exchange.features };
    exchange.early = hello.features.includes(EARLY_SHARE) && hello.session === undefined;
    // That of our hello is good for nothing else.
    if (!exchange.early) exchange.scalar = entropy(FIELD_SIZE);
    if (hello.session !== undefined) {
      session = sessions.get(hello.session);
      if (!session)
        throw errors.pairingFailed("the receiver goes by a pairing that this sender does not know");
    }
    const pake = await exchange.hear("pake", WORDS_TIMEOUT);
    checkTries();
    // First what refuses a bad share, and only then the work and the answer.
    const shared = await exchange.takeShare(pake.share);
    if (!exchange.early) {
      exchange.say({ type: "pake", share: await exchange.makeShare(session ? session.key : password) });
    }
    awaitsProof = true;
    const keys = await exchange.makeKeys(shared);
    const confirm = await exchange.hear("confirm", STEP_TIMEOUT);
    awaitsProof = false;
    // Others may have used them up while this one was on its way.
    checkTries();
    const [words, connection] = await exchange.verify(confirm, keys);
    if (!words) throw tries.countWrongWords();
    if (!connection) throw errors.connectionMismatch();
    tries.countSuccess();
    await exchange.sayConfirm(keys);
    const made = await keys.session();
    sessions.set(made.id, made);
    return { session: made, features: exchange.features };
  };

  try {
    return await exchange.run(steps);
  } catch (error) {
    if (!awaitsProof || session) throw error;
    throw tries.countUnfinished(/** @type {FlyxError} */ (error));
  }
}

/**
 * Pair with a sender, as a receiver.
 *
 * @param {Channels} channels
 * @param {object} how
 * @param {Binding} how.binding
 * @param {Session | null} how.session Of an earlier pairing with it in this room; then no words are wanted.
 * @param {boolean} how.hasWords Our code has some, so a sender who asks for none is a false one.
 * @param {(count: number) => Promise<string>} how.ask Returns the password: of so many words of the list, 0:
 *     of the sender's own.
 * @param {AbortSignal} how.signal
 * @param {(size: number) => Uint8Array} [how.entropy]
 * @returns {Promise<Paired>}
 */
export async function pairAsReceiver(channels, how) {
  const { binding, session, hasWords, ask, signal, entropy = randomBytes } = how;
  const exchange = new Exchange("receiver", channels, binding, signal, entropy);

  /**
   * The words of our person; what the sender says meanwhile can only be that it is over.
   *
   * @param {any} hello
   */
  const askWords = async (hello) => {
    const meanwhile = exchange.heard("nothing");
    meanwhile.catch(() => {});
    try {
      const asked = ask(hello.code === "words" ? hello.words : 0);
      return utf8(await Promise.race([asked, meanwhile, exchange.ending]));
    } finally {
      exchange.control.release();
    }
  };

  const steps = async () => {
    // The sender speaks first: what is sent on a channel of the peer's as soon as that is open, Chromium (156)
    // loses now and then without a word. When the sender's first message is here, it is open for certain.
    // A sender of another version needs our hello as well, to tell its person.
    const greet = () => exchange.greet({ features: [EARLY_SHARE, ...FEATURES], session: session?.id });
    const hello = await exchange.hear("hello", STEP_TIMEOUT).finally(greet);
    exchange.takeHello(hello);
    if (hello.code === undefined) throw errors.protocolError("a second receiver");
    if (hello.code === "open") {
      if (hasWords || session) throw errors.noWordsAsked();
      return { session: null, features: exchange.features };
    }
    exchange.early = !session && hello.share !== undefined;
    let shared = exchange.early ? await exchange.takeShare(hello.share) : null;
    const password = session ? session.key : await askWords(hello);
    exchange.say({ type: "pake", share: await exchange.makeShare(password) });
    if (!shared) shared = await exchange.takeShare((await exchange.hear("pake", STEP_TIMEOUT)).share);
    const keys = await exchange.makeKeys(shared);
    await exchange.sayConfirm(keys);
    const confirm = await exchange.hear("confirm", STEP_TIMEOUT);
    const [words, connection] = await exchange.verify(confirm, keys);
    if (!words) throw errors.wrongWords();
    if (!connection) throw errors.connectionMismatch();
    return { session: await keys.session(), features: exchange.features };
  };

  return exchange.run(steps);
}

/** @param {unknown} message @returns {any} */
function parseUntrusted(message) {
  if (typeof message !== "string") throw errors.protocolError("a binary message on the control channel");
  if (message.length > MAX_SIZE) throw errors.protocolError("a message too long for pairing");
  const parsed = parseMessage(message, GRAMMAR);
  if (parsed) return parsed;
  const other = parseMessage(message, OTHER_HELLO);
  if (other && other.version !== VERSION) throw errors.otherVersion(other.version, VERSION);
  throw errors.protocolError("a message that is none of pairing");
}

/** What a reject of the other side is for us: it is not known, and only its code counts.
 *
 * @param {string} reason
 * @param {Role} hearer
 */
function errorOfReject(reason, hearer) {
  const speaker = hearer === "sender" ? "receiver" : "sender";
  // A sender judges for itself: nothing that a stranger says may count as a try or close the room.
  const believed = hearer === "receiver" ? reason : "";
  if (believed === "wrong_words") return errors.wrongWords();
  if (believed === "too_many_tries") return errors.tooManyTries(MAX_TRIES, errors.ASK_FOR_ANOTHER);
  if (believed === "too_many_unfinished")
    return errors.tooManyUnfinished(MAX_UNFINISHED, errors.ASK_FOR_ANOTHER);
  if (believed === "connection_mismatch") return errors.connectionMismatch();
  if (reason === "interrupted") return errors.interrupted(`the ${speaker} stopped it`);
  if (reason === "sender_left") return errors.senderLeft();
  if (reason === "pairing_timed_out")
    return errors.pairingFailed(`the ${speaker} waited too long for this side`);
  if (reason === "bad_input") return errors.pairingFailed(`the ${speaker} typed an incomplete code`);
  return errors.pairingFailed(`the ${speaker} ended it (${reason})`);
}
