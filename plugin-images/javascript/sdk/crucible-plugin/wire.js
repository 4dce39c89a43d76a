// The wire of the bus, version 1, as a client speaks it: frames to bytes and back.
"use strict";

const { classes } = require("./errors.js");

const KINDS = [
  "HELLO", "WELCOME", "CALL", "ANSWER", "ERROR", "CANCEL", "ITEM", "CREDIT", "PUBLISH", "SUBSCRIBE", "UNSUBSCRIBE",
  "MESSAGE",
];
const kinds = Object.fromEntries(KINDS.map((name, at) => [name, at + 1]));
const STREAM = 1;
const LAST = 2;
const PRIORITIES = ["critical", "high", "normal", "low"];
const PAYLOAD_LIMIT = 1024 * 1024;
const LONGEST_DEADLINE = 86_400_000;
const HEAD = 20;
const LENGTH = 4;
const LARGEST = HEAD - LENGTH + 255 + 4096 + PAYLOAD_LIMIT;
const EMPTY = Buffer.alloc(0);

/** Return the bytes of a frame; throw TooLarge or Malformed for what the broker would not take. */
function encode({ kind, id = 0, name = "", payload = EMPTY, headers = {}, priority = 2, deadline = 0, flags = 0 }) {
  const nameBytes = Buffer.from(name);
  if (nameBytes.length !== name.length) {
    throw new classes.Malformed(`${name} holds more than ASCII`);
  }
  const headerBytes = encodeHeaders(headers);
  if (nameBytes.length > 255 || headerBytes.length > 4096 || payload.length > PAYLOAD_LIMIT) {
    throw new classes.TooLarge(`name, headers and payload: 255, 4096 and ${PAYLOAD_LIMIT} bytes at most`);
  }
  const head = Buffer.alloc(HEAD);
  head.writeUInt32BE(HEAD - LENGTH + nameBytes.length + headerBytes.length + payload.length, 0);
  head.writeUInt8(kind, 4);
  head.writeUInt8(priority, 5);
  head.writeUInt8(flags, 6);
  head.writeUInt32BE(id, 8);
  head.writeUInt32BE(deadline, 12);
  head.writeUInt16BE(nameBytes.length, 16);
  head.writeUInt16BE(headerBytes.length, 18);
  return Buffer.concat([head, nameBytes, headerBytes, payload]);
}

function encodeHeaders(headers) {
  const parts = [];
  for (const [key, value] of Object.entries(headers)) {
    const [name, text] = [Buffer.from(key), Buffer.from(String(value))];
    if (name.length === 0 || name.length > 64 || text.length > 4096) {
      throw new classes.TooLarge(`header ${key}: its name or its value is too long`);
    }
    const size = Buffer.alloc(2);
    size.writeUInt16BE(text.length);
    parts.push(Buffer.from([name.length]), name, size, text);
  }
  return Buffer.concat(parts);
}

function decodeHeaders(data) {
  const headers = {};
  for (let at = 0; at < data.length; ) {
    const valueAt = at + 3 + data[at];
    const end = valueAt + data.readUInt16BE(valueAt - 2);
    // A name of a sender's choosing is a value here, never a way to an object's own workings.
    Object.defineProperty(headers, data.toString("utf8", at + 1, valueAt - 2), {
      value: data.toString("utf8", valueAt, end), enumerable: true, configurable: true, writable: true,
    });
    at = end;
  }
  return headers;
}

/** Takes bytes as they come in and yields whole frames. */
class Decoder {
  #kept = EMPTY;

  *feed(chunk) {
    const data = this.#kept.length ? Buffer.concat([this.#kept, chunk]) : chunk;
    let at = 0;
    try {
      while (data.length - at >= HEAD) {
        const length = data.readUInt32BE(at);
        if (length < HEAD - LENGTH || length > LARGEST) {
          throw new classes.Malformed(`a frame of ${length} bytes`);
        }
        const end = at + LENGTH + length;
        if (data.length < end) {
          return;
        }
        const nameAt = at + HEAD;
        const headersAt = nameAt + data.readUInt16BE(at + 16);
        const payloadAt = headersAt + data.readUInt16BE(at + 18);
        const frame = {
          kind: data[at + 4], priority: data[at + 5], flags: data[at + 6],
          id: data.readUInt32BE(at + 8), deadline: data.readUInt32BE(at + 12),
          name: data.toString("latin1", nameAt, headersAt),
          headers: decodeHeaders(data.subarray(headersAt, payloadAt)),
          payload: data.subarray(payloadAt, end),
        };
        at = end;
        yield frame;
      }
    } finally {
      this.#kept = data.subarray(at);
    }
  }
}

/** Return a payload: bytes as they are, nothing for undefined and null, JSON for all else. */
function toBytes(value) {
  if (value instanceof Uint8Array) {
    return Buffer.from(value.buffer, value.byteOffset, value.byteLength);
  }
  return value === undefined || value === null ? EMPTY : Buffer.from(JSON.stringify(value));
}

/** Return the value of a payload; undefined for an empty one. */
function fromBytes(payload) {
  if (!payload.length) {
    return undefined;
  }
  try {
    return JSON.parse(payload.toString());
  } catch {
    throw new classes.Malformed("the payload is no JSON: take it as bytes with {raw: true}");
  }
}

/** Return the frame that says why something was not done. */
function errorFrame({ id, priority }, code, message) {
  return { kind: kinds.ERROR, id, priority, name: code, payload: Buffer.from(message).subarray(0, PAYLOAD_LIMIT) };
}

module.exports = {
  kinds, STREAM, LAST, PRIORITIES, LONGEST_DEADLINE, EMPTY, encode, Decoder, toBytes, fromBytes, errorFrame,
};
