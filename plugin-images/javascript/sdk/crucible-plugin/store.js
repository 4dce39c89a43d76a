// The plugin's own key-value store: what `capabilities.store` grants.
"use strict";

const { classes } = require("./errors.js");
const { toBytes, fromBytes } = require("./wire.js");

const which = (key, revision) => (revision === undefined ? { key } : { key, revision: String(revision) });

class Store {
  #ask;
  #open;

  constructor(ask, open) {
    this.#ask = ask;
    this.#open = open;
  }

  /** Return a value; the default when there is none. */
  async get(key, otherwise = undefined, options = {}) {
    try {
      return (await this.read(key, options)).value;
    } catch (error) {
      if (error instanceof classes.NotFound) {
        return otherwise;
      }
      throw error;
    }
  }

  /** Return a value and its revision. */
  async read(key, { raw = false } = {}) {
    const frame = await this.#ask("$store.get", { key });
    return { value: raw ? frame.payload : fromBytes(frame.payload), revision: Number(frame.headers.revision) };
  }

  /** Store a value and return its revision. */
  async put(key, value, { revision } = {}) {
    const frame = await this.#ask("$store.put", which(key, revision), toBytes(value));
    return Number(frame.headers.revision);
  }

  /** Delete a value. */
  async delete(key, { revision } = {}) {
    await this.#ask("$store.delete", which(key, revision));
  }

  /** Yield all keys that begin so, sorted. */
  async *keys(prefix = "") {
    for (let after = "", more = true; more; ) {
      const headers = { ...(prefix && { prefix }), ...(after && { after }) };
      const page = fromBytes((await this.#ask("$store.list", headers)).payload);
      for (const { key } of page.keys) {
        after = key;
        yield key;
      }
      more = page.more;
    }
  }

  /** Return what changes from now on, for ever. */
  watch(prefix = "") {
    const stream = this.#open("$store.watch", prefix ? { prefix } : {});
    return (async function* changes() {
      for await (const { headers, payload } of stream.frames()) {
        const deleted = headers.op === "delete";
        const value = deleted ? undefined : fromBytes(payload);
        yield { key: headers.key, revision: Number(headers.revision), deleted, value };
      }
    })();
  }
}

module.exports = { Store };
