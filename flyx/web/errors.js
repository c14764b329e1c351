/**
 * What may go wrong, by the codes of the command line (flyx/errors.py, flyx/docs/scripting.md).
 *
 * @module
 */

/** Why something did not work: a stable code for programs, a sentence and perhaps a hint for people. */
export class FlyxError extends Error {
  /**
   * @param {string} code
   * @param {string} message A sentence without its full stop, or several.
   * @param {{ hint?: string | null, cause?: unknown }} [more]
   */
  constructor(code, message, { hint = null, cause } = {}) {
    super(message, { cause });
    this.name = "FlyxError";
    this.code = code;
    this.hint = hint;
  }
}
