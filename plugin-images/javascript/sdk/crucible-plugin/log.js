// The plugin's log: one line of JSON each on its standard output.
"use strict";

const { writeSync } = require("node:fs");
const { current } = require("./context.js");

const LEVELS = ["debug", "info", "warning", "error"];

class Log {
  #least = Math.max(LEVELS.indexOf(process.env.CRUCIBLE_LOG_LEVEL ?? "info"), 0);

  #write(level, message, fields) {
    if (LEVELS.indexOf(level) < this.#least) {
      return;
    }
    const span = current.getStore()?.trace;
    const ids = span && { trace_id: span.traceId, span_id: span.spanId };
    const line = JSON.stringify({ time: new Date().toISOString(), level, message, ...ids, ...fields });
    for (let data = Buffer.from(`${line}\n`); data.length; ) {
      try {
        data = data.subarray(writeSync(1, data));
      } catch (error) {
        if (error.code !== "EAGAIN") {
          throw error;
        }
      }
    }
  }

  debug(message, fields) {
    this.#write("debug", message, fields);
  }

  info(message, fields) {
    this.#write("info", message, fields);
  }

  warning(message, fields) {
    this.#write("warning", message, fields);
  }

  error(message, fields) {
    this.#write("error", message, fields);
  }
}

module.exports = { Log };
