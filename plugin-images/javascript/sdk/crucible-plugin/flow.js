// One end of a stream: items out as far as there is credit, items in as they are asked for.
"use strict";

const { classes, errorOf } = require("./errors.js");
const { kinds, LAST, EMPTY, toBytes, fromBytes } = require("./wire.js");

const WINDOW = 16;

class Flow {
  #send;
  #credit = 0;
  #owed = 0;
  #items = [];
  #finished = false;
  #waiting = [];
  end = undefined;

  /** @param send says a frame  @param frame the CALL that began it */
  constructor(send, { id, priority }) {
    this.#send = send;
    this.id = id;
    this.priority = priority;
  }

  /** Take what the other side said. */
  receive(frame) {
    if (frame.kind === kinds.ITEM) {
      this.#finished ||= Boolean(frame.flags & LAST);
      if (frame.payload.length || !(frame.flags & LAST)) {
        this.#items.push(frame);
      }
    } else if (frame.kind === kinds.CREDIT) {
      this.#credit += frame.payload.readUInt32BE(0);
    } else {
      this.end = frame;
    }
    for (const wake of this.#waiting.splice(0)) {
      wake();
    }
  }

  /** Say a frame of this call. */
  say(kind, payload = EMPTY, flags = 0) {
    this.#send({ kind, id: this.id, priority: this.priority, payload, flags });
  }

  /** Return the next item; undefined when there are no more. */
  async next() {
    while (!this.#items.length) {
      if (this.end || this.#finished) {
        return undefined;
      }
      if (this.#owed <= WINDOW / 2) {
        const credit = Buffer.alloc(4);
        credit.writeUInt32BE(WINDOW - this.#owed);
        this.#owed = WINDOW;
        this.say(kinds.CREDIT, credit);
      }
      await this.#change();
    }
    this.#owed -= 1;
    return this.#items.shift();
  }

  /** Send an item once there is credit for it; false when the call has ended instead. */
  async put(payload, flags = 0) {
    while (!this.#credit) {
      if (this.end) {
        return false;
      }
      await this.#change();
    }
    this.#credit -= 1;
    this.say(kinds.ITEM, payload, flags);
    return true;
  }

  /** Return the frame that ended it. */
  async ended() {
    while (!this.end) {
      await this.#change();
    }
    return this.end;
  }

  #change() {
    return new Promise((wake) => this.#waiting.push(wake));
  }
}

/** A call with items both ways: iterate over it; leave the loop to end it early. */
class Stream {
  #flow;
  #raw;
  #close;
  result = undefined;

  constructor(flow, close, raw) {
    this.#flow = flow;
    this.#close = close;
    this.#raw = raw;
  }

  async *[Symbol.asyncIterator]() {
    for await (const frame of this.frames()) {
      yield this.#raw ? frame.payload : fromBytes(frame.payload);
    }
  }

  /** Yield the items with their headers. */
  async *frames() {
    try {
      for (let frame; (frame = await this.#flow.next()); ) {
        yield frame;
      }
      this.#settle();
    } finally {
      this.cancel();
    }
  }

  /** Send an item once the other side wants one. */
  async send(item) {
    if (!(await this.#flow.put(toBytes(item)))) {
      this.#settle();
      throw new classes.Cancelled("the call has ended");
    }
  }

  /** Say that no more items come from here. */
  async finish() {
    if (!(await this.#flow.put(EMPTY, LAST))) {
      this.#settle();
    }
  }

  /** End the call, unless it has ended. */
  cancel() {
    if (!this.#flow.end) {
      this.#flow.say(kinds.CANCEL);
    }
    this.#close();
  }

  #settle() {
    const end = this.#flow.end;
    if (end?.kind === kinds.ERROR) {
      throw errorOf(end);
    }
    if (end) {
      this.result = this.#raw ? end.payload : fromBytes(end.payload);
    }
  }
}

module.exports = { Flow, Stream };
