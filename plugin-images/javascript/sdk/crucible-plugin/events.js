// Durable events: kept on the backbone until they were taken, once or more.
"use strict";

const { classes } = require("./errors.js");
const { toBytes, fromBytes } = require("./wire.js");

const POLL = 5000;
const PAUSE = 1000;

class Events {
  #exchange;

  constructor(exchange) {
    this.#exchange = exchange;
  }

  /** Keep an event for whoever follows its subject; return its number once it is safe. */
  async put(subject, payload, { id } = {}) {
    const headers = { subject, ...(id && { id }) };
    const frame = await this.#exchange("$events.put", toBytes(payload), { headers });
    return Number(frame.headers.sequence);
  }

  /** Return the oldest event that fits; undefined when there is none in time. */
  async take(pattern, { subscription = "main", done, timeout, signal, raw = false } = {}) {
    const headers = { pattern, subscription, ...(done && { done: done.sequence }) };
    try {
      const frame = await this.#exchange("$events.take", undefined, { headers, timeout, signal });
      const { subject, from: caller, sequence, ...rest } = frame.headers;
      return { subject, caller, sequence, headers: rest, payload: raw ? frame.payload : fromBytes(frame.payload) };
    } catch (error) {
      if (error instanceof classes.DeadlineExceeded) {
        return undefined;
      }
      throw error;
    }
  }

  /** Yield events as they come, until the signal; each is done when the next one is asked for. */
  async *follow(pattern, { signal, ...options } = {}) {
    for (let done; !signal?.aborted; ) {
      try {
        done = await this.take(pattern, { ...options, done, signal, timeout: POLL });
      } catch (error) {
        if (signal?.aborted) {
          return;
        }
        if (!(error instanceof classes.Unavailable || error instanceof classes.Overloaded)) {
          throw error;
        }
        await new Promise((resume) => setTimeout(resume, PAUSE));
        continue;
      }
      if (done) {
        yield done;
      }
    }
  }
}

module.exports = { Events };
