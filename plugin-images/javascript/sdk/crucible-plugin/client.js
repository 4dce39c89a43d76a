// What a program says on the bus: calls, streams, messages, its store; over a connection that is made anew.
"use strict";

const { reach } = require("./reach.js");
const { current, traced } = require("./context.js");
const { classes, errorOf } = require("./errors.js");
const { Events } = require("./events.js");
const { Flow, Stream } = require("./flow.js");
const { Log } = require("./log.js");
const { Store } = require("./store.js");
const {
  kinds, STREAM, PRIORITIES, LONGEST_DEADLINE, EMPTY, encode, Decoder, toBytes, fromBytes, errorFrame,
} = require("./wire.js");

const DEFAULT_TIME = 30_000;
const GRACE = 1000;
const PAUSES = [50, 100, 200, 500, 1000, 2000];

class Client {
  #address;
  #authority;
  #socket;
  #connecting;
  #closed = false;
  #lastId = -1;
  #flows = new Map();
  #refused = new Set();
  log = new Log();
  store = new Store(
    (name, headers, payload) => this.exchange(name, payload, { headers }),
    (name, headers) => this.#stream(name, undefined, { headers }),
  );

  events = new Events((name, payload, options) => this.exchange(name, payload, options));

  constructor(address, authority) {
    this.#address = address;
    this.#authority = authority;
  }

  get hasBus() {
    return Boolean(this.#address);
  }

  get connected() {
    return this.#socket !== undefined;
  }

  /** Call `plugin.method` and return what it answers. */
  async call(name, payload, options = {}) {
    const frame = await this.exchange(name, toBytes(payload), options);
    return options.raw ? frame.payload : fromBytes(frame.payload);
  }

  /** Call a method that answers with many items. */
  async stream(name, payload, options = {}) {
    await this.#ensure();
    return this.#stream(name, payload, options);
  }

  /** Tell whoever listens to a subject; with `confirm` return how many subscriptions it reached. */
  async publish(subject, payload, { confirm = false } = {}) {
    await this.#ensure();
    const frame = { kind: kinds.PUBLISH, id: 0, name: subject, payload: toBytes(payload), headers: traced({}) };
    if (!confirm) {
      this.send(frame);
      return 0;
    }
    const answer = await this.finished(this.open({ ...frame, id: this.nextId() }));
    return Number(answer.headers.reached ?? 0);
  }

  /** Call a method and return the ANSWER as it came. */
  async exchange(name, payload = EMPTY, { timeout, priority, headers, signal } = {}) {
    await this.#ensure();
    const left = Math.min(timeout ?? DEFAULT_TIME, current.getStore()?.remaining ?? Infinity);
    const flow = this.open(this.#callFrame(name, payload, { left, priority, headers }));
    return this.finished(flow, left, signal);
  }

  #callFrame(name, payload, { left = 0, priority = "normal", headers = {}, flags = 0 }) {
    const urgency = PRIORITIES.indexOf(priority);
    if (urgency < 0) {
      throw new TypeError(`priority is one of ${PRIORITIES.join(", ")}`);
    }
    const deadline = left && Math.min(Math.max(Math.trunc(left), 1), LONGEST_DEADLINE);
    const said = { kind: kinds.CALL, id: this.nextId(), name, payload, priority: urgency, deadline, flags };
    return { ...said, headers: traced(headers) };
  }

  #stream(name, payload, { timeout = 0, priority, headers, raw = false }) {
    const frame = this.#callFrame(name, toBytes(payload), { left: timeout, priority, headers, flags: STREAM });
    const flow = this.open(frame);
    const signal = current.getStore()?.signal;
    const cancel = () => flow.say(kinds.CANCEL);
    signal?.addEventListener("abort", cancel, { once: true });
    const close = () => {
      signal?.removeEventListener("abort", cancel);
      this.#flows.delete(flow.id);
    };
    return new Stream(flow, close, raw);
  }

  /** Send a frame, and take what comes of it. */
  open(frame) {
    const flow = new Flow((said) => this.say(said), { priority: 2, ...frame });
    this.#flows.set(frame.id, flow);
    try {
      this.send(frame);
    } catch (error) {
      this.#flows.delete(frame.id);
      throw error;
    }
    return flow;
  }

  /** Wait for the end of a call; return its answer or throw its error. */
  async finished(flow, left = DEFAULT_TIME, signal = current.getStore()?.signal) {
    const late = errorFrame(flow, "DeadlineExceeded", "no answer came in time, nor the broker's word that none does");
    const clock = setTimeout(() => flow.receive(late), left + GRACE);
    const cancel = () => flow.say(kinds.CANCEL);
    signal?.addEventListener("abort", cancel, { once: true });
    try {
      if (signal?.aborted) {
        cancel();
      }
      const frame = await flow.ended();
      if (frame.kind === kinds.ERROR) {
        throw errorOf(frame);
      }
      return frame;
    } finally {
      clearTimeout(clock);
      signal?.removeEventListener("abort", cancel);
      this.#flows.delete(flow.id);
    }
  }

  nextId() {
    this.#lastId = (this.#lastId + 2) % 2 ** 32;
    return this.#lastId;
  }

  /** Send a frame; throw Unavailable when there is no connection. */
  send(frame) {
    const data = encode(frame);
    if (!this.#socket) {
      throw new classes.Unavailable("the bus is not there just now");
    }
    this.#socket.write(data);
  }

  /** Answer: what cannot be sent ends in an error, and is nobody's fault when the bus is gone. */
  say(frame) {
    try {
      this.send(frame);
    } catch (error) {
      if (!(error instanceof classes.BusError)) {
        throw error;
      }
      if (error.code !== "Unavailable") {
        this.send(errorFrame(frame, error.code, error.message));
      }
    }
  }

  // The connection.

  async #ensure() {
    if (!this.hasBus) {
      throw new classes.Unavailable("this plugin has no bus: grant it something under capabilities.bus");
    }
    if (!this.connected) {
      await this.connect(this.#lastId < 0 ? 10_000 : 0);
    }
  }

  /** Connect, trying for so many milliseconds. */
  connect(patience) {
    this.#connecting ??= this.#connect(performance.now() + patience).finally(() => (this.#connecting = undefined));
    return this.#connecting;
  }

  async #connect(until) {
    for (let attempt = 0; ; attempt += 1) {
      try {
        return await this.#attempt();
      } catch (error) {
        if (this.#closed || error.code !== "Unavailable" || performance.now() >= until) {
          throw error;
        }
      }
      await new Promise((wake) => setTimeout(wake, PAUSES[Math.min(attempt, PAUSES.length - 1)]));
    }
  }

  #attempt() {
    return new Promise((resolve, reject) => {
      let socket;
      const decoder = new Decoder();
      let greeted = false;
      const gone = (why) => {
        socket.destroy();
        if (!greeted) {
          reject(new classes.Unavailable(`the bus is not there: ${why}`));
        } else if (this.#socket === socket) {
          this.#socket = undefined;
          this.lost();
          this.#comeBack();
        }
      };
      const take = (frame) => {
        if (greeted) {
          this.receive(frame);
        } else if (frame.kind === kinds.WELCOME) {
          greeted = true;
          this.#socket = socket;
          this.welcomed();
          resolve();
        } else {
          reject(errorOf(frame));
          socket.destroy();
        }
      };
      const greet = () => {
        const hello = { wire: [1], client: "crucible-plugin-javascript/1", ...this.hello() };
        socket.write(encode({ kind: kinds.HELLO, payload: toBytes(hello) }));
      };
      try {
        socket = reach(this.#address, this.#authority, greet);
      } catch (error) {
        reject(new classes.Unavailable(`the bus is not there: ${error.message}`));
        return;
      }
      socket.on("data", (chunk) => {
        try {
          for (const frame of decoder.feed(chunk)) {
            take(frame);
          }
        } catch (error) {
          gone(error.message);
        }
      });
      socket.on("error", (error) => gone(error.message));
      socket.on("close", () => gone("the broker closed it"));
    });
  }

  #comeBack() {
    if (!this.#closed) {
      this.connect(Infinity).catch((error) => this.log.error("the bus is gone for good", { why: error.message }));
    }
  }

  /** Leave the bus. */
  close() {
    this.#closed = true;
    const socket = this.#socket;
    this.#socket = undefined;
    socket?.end();
    this.lost();
  }

  // What a plugin does beyond a client.

  hello() {
    return {};
  }

  welcomed() {}

  lost() {
    for (const flow of this.#flows.values()) {
      flow.receive(errorFrame(flow, "Unavailable", "the bus went away; it is not known whether the call was done"));
    }
  }

  /** Take a frame: part of a call of ours, or an error that no call waits for. */
  receive(frame) {
    const flow = this.#flows.get(frame.id);
    if (flow) {
      flow.receive(frame);
    } else if (frame.kind === kinds.ERROR) {
      const subject = frame.headers.subject ?? "";
      if (!subject || !this.#refused.has(subject)) {
        this.#refused.add(subject);
        this.log.warning("refused", { code: frame.name, why: frame.payload.toString(), subject });
      }
    }
  }
}

module.exports = { Client };
