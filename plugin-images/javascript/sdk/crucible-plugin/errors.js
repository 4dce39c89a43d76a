// What can go wrong on the bus: one class for each code of the wire.
"use strict";

class BusError extends Error {
  /** @param {string} message why, in words  @param {Record<string, string>} headers what came with it */
  constructor(message, headers = {}, code = undefined) {
    super(message);
    this.name = new.target.name;
    this.code = code ?? new.target.name;
    this.headers = headers;
  }

  /** Whether the same may work a while later. */
  get retry() {
    return ["Unavailable", "Overloaded", "DeadlineExceeded"].includes(this.code);
  }
}

const classes = { BusError };
for (const code of [
  "Malformed", "UnsupportedVersion", "NotPermitted", "NoSuchPlugin", "NoSuchMethod", "Unavailable", "Overloaded",
  "DeadlineExceeded", "Cancelled", "TooLarge", "NotFound", "StoreFull", "Failed",
]) {
  classes[code] = { [code]: class extends BusError {} }[code];
}
classes.Conflict = class Conflict extends BusError {
  /** The revision that is there. */
  get revision() {
    return Number(this.headers.revision ?? 0);
  }
};

/** Return the exception for an ERROR frame. */
function errorOf(frame) {
  const message = frame.payload.toString();
  const known = Object.hasOwn(classes, frame.name) ? classes[frame.name] : undefined;
  return known ? new known(message, frame.headers) : new BusError(message, frame.headers, frame.name);
}

module.exports = { classes, errorOf };
