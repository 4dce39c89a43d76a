// What work belongs to, carried from plugin to plugin: W3C trace context, and the call that is being served.
"use strict";

const { AsyncLocalStorage } = require("node:async_hooks");
const { randomBytes } = require("node:crypto");

const current = new AsyncLocalStorage();
const PARENT = /^(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-([0-9a-f]{2})(-|$)/;
/** Characters of a tracestate that are passed on: a longer one would leave other headers no room. */
const STATE = 512;

/** Return a span below the one that came with a frame; undefined when none came. */
function spanOf(headers) {
  const match = PARENT.exec(headers.traceparent ?? "");
  const state = headers.tracestate?.length <= STATE ? headers.tracestate : undefined;
  return match && { traceId: match[1], spanId: randomBytes(8).toString("hex"), flags: match[2], state };
}

/** Return what goes with what is said as part of the current work. */
function traced(headers) {
  const span = current.getStore()?.trace;
  if (!span) {
    return headers;
  }
  const traceparent = `00-${span.traceId}-${span.spanId}-${span.flags}`;
  return { traceparent, ...(span.state && { tracestate: span.state }), ...headers };
}

module.exports = { current, spanOf, traced };
