/**
 * What a message from elsewhere may look like: each rule takes a value as JSON has it, and returns it with
 * what is absent filled in, or throws Malformed. Unknown fields are left out, so that later versions can add
 * some.
 *
 * @module
 */

/** A value is not as a rule has it. */
export class Malformed extends Error {}

/** @template T @typedef {(value: unknown) => T} Rule */

/** @param {number} [least] @param {number} [most] Within what a double holds. @returns {Rule<number>} */
export const integer =
  (least = 0, most = 2 ** 53) =>
  (value) => {
    if (typeof value === "number" && Number.isInteger(value) && least <= value && value <= most) return value;
    throw new Malformed("integer");
  };

/** @param {number} [least] @returns {Rule<number>} */
export const number =
  (least = -Infinity) =>
  (value) => {
    if (typeof value === "number" && Number.isFinite(value) && value >= least) return value;
    throw new Malformed("number");
  };

/** @type {Rule<boolean>} */
export const flag = (value) => {
  if (typeof value === "boolean") return value;
  throw new Malformed("flag");
};

/** @param {number} most Characters. @param {RegExp} [pattern] @returns {Rule<string>} */
export const text =
  (most, pattern = /^/) =>
  (value) => {
    if (typeof value === "string" && pattern.test(value)) {
      if (value.length <= most || (value.length <= 2 * most && [...value].length <= most)) return value;
    }
    throw new Malformed("text");
  };

/** @param {number} size Bytes. @returns {Rule<string>} */
export const hexText = (size) => text(2 * size, new RegExp(`^[0-9a-f]{${2 * size}}$`));

/** @template T @param {...T} values @returns {Rule<T>} */
export const one =
  (...values) =>
  (value) => {
    if (values.includes(/** @type {any} */ (value))) return /** @type {any} */ (value);
    throw new Malformed("choice");
  };

/** @template T @param {Rule<T>} rule @param {number} most @param {number} [least] @returns {Rule<T[]>} */
export const list =
  (rule, most, least = 0) =>
  (value) => {
    if (Array.isArray(value) && least <= value.length && value.length <= most) return value.map(rule);
    throw new Malformed("list");
  };

/** @param {...Rule<any>} rules @returns {Rule<any[]>} */
export const row =
  (...rules) =>
  (value) => {
    if (Array.isArray(value) && value.length === rules.length) return rules.map((rule, i) => rule(value[i]));
    throw new Malformed("row");
  };

/** @template T @template D @param {Rule<T>} rule @param {D} [absent] @returns {Rule<T | D | undefined>} */
export const optional = (rule, absent) => (value) =>
  value === undefined || value === null ? absent : rule(value);

/** @template T @param {Rule<T>} rule @returns {Rule<T | null>} */
export const nullable = (rule) => (value) => (value === null ? null : rule(value));

/** @param {Record<string, Rule<any>>} fields @returns {Rule<any>} */
export const record = (fields) => {
  const rules = Object.entries(fields);
  return (value) => {
    if (typeof value !== "object" || value === null || Array.isArray(value)) throw new Malformed("record");
    /** @type {Record<string, unknown>} */
    const found = {};
    for (const [name, rule] of rules) {
      found[name] = rule(Object.hasOwn(value, name) ? /** @type {any} */ (value)[name] : undefined);
    }
    return found;
  };
};

/** Return the message that a text is, by the rules for each type; null if it is none.
 *
 * @param {unknown} message
 * @param {Record<string, Rule<any>>} types
 * @returns {any}
 */
export function parseMessage(message, types) {
  try {
    const value = JSON.parse(/** @type {string} */ (message));
    const type = value?.type;
    if (typeof type !== "string" || !Object.hasOwn(types, type)) return null;
    return { ...types[type](value), type };
  } catch (error) {
    if (error instanceof Malformed || error instanceof SyntaxError) return null;
    throw error;
  }
}
