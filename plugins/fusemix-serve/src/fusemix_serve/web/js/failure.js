/** A request that failed. `hint` is a sentence for the user; `retry` says whether trying again may help. */
export class Failure extends Error {
  constructor(message, hint = "", retry = false) {
    super(message);
    Object.assign(this, { hint, retry, code: "" });
  }
}
