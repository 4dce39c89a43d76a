// A plugin on the bus: declare methods, then `await plugin.run()`.
"use strict";

const { readFileSync } = require("node:fs");
const { Client } = require("./client.js");
const { current, spanOf } = require("./context.js");
const { classes } = require("./errors.js");
const { Flow } = require("./flow.js");
const { kinds, STREAM, toBytes, fromBytes, errorFrame } = require("./wire.js");

const METHOD = /^[A-Za-z0-9_-]{1,64}$/;

class Plugin extends Client {
  #methods = new Map();
  #handlers = [];
  #lanes = new Map();
  #requests = new Map();
  #onConfig;
  #onStop = [];
  #saysReady = true;
  #asked;
  #stopped = new Promise((stop) => (this.#asked = stop));
  #stopping = false;
  #window;
  #drain;

  constructor({ window = 64, drain = 5000 } = {}) {
    super(process.env.CRUCIBLE_BUS, process.env.CRUCIBLE_BUS_CA);
    this.#window = window;
    this.#drain = drain;
    const path = process.env.CRUCIBLE_CONFIG;
    this.config = path ? JSON.parse(readFileSync(path, "utf8")) : {};
  }

  /** Offer a function. Declare all before the bus is first used. */
  method(name, run, { raw = false } = {}) {
    if (!METHOD.test(name)) {
      throw new TypeError(`${name} is no name of a method: letters, digits, '_' and '-', 64 at most`);
    }
    if (this.connected) {
      throw new Error(`${name}: declare methods before the bus is first used`);
    }
    this.#methods.set(name, { run, raw });
    return this;
  }

  /** Give messages whose subject fits a pattern to a function, one after the other. */
  async subscribe(pattern, handle, { raw = false } = {}) {
    const handler = { pattern, handle, raw };
    this.#handlers.push(handler);
    if (this.connected) {
      await this.finished(this.open(this.#listen(handler)));
    }
  }

  /** Take a new configuration without a restart; what it throws refuses it. */
  onConfig(change) {
    this.#onConfig = change;
  }

  /** Run a function once open calls have ended; the bus is still there. */
  onStop(end) {
    this.#onStop.push(end);
  }

  /** Say that the plugin can serve. */
  async ready() {
    this.#saysReady = true;
    await this.exchange("$bus.ready", undefined, { priority: "high" });
  }

  /** Say that it cannot just now; before `run`: not yet. */
  async unready(why) {
    this.#saysReady = false;
    if (this.connected) {
      await this.exchange("$bus.unready", Buffer.from(why), { priority: "high" });
    }
  }

  /** Serve until SIGTERM, SIGINT or `stop`; then let open calls end, and return. */
  async run() {
    const stop = () => this.stop();
    process.on("SIGTERM", stop).on("SIGINT", stop);
    const alive = setInterval(() => {}, 2 ** 30);
    try {
      if (this.hasBus) {
        await this.connect(10_000);
      }
      await this.#stopped;
      await this.#end();
    } finally {
      clearInterval(alive);
      process.off("SIGTERM", stop).off("SIGINT", stop);
      this.close();
    }
  }

  /** Ask the plugin to stop, as SIGTERM does. */
  stop() {
    this.#stopping = true;
    this.#asked();
  }

  async #end() {
    if (this.connected) {
      this.exchange("$bus.unready", Buffer.from("stopping"), { priority: "high" }).catch(() => undefined);
      let late;
      const limit = new Promise((resolve) => (late = setTimeout(resolve, this.#drain)));
      await Promise.race([limit, Promise.all([...this.#requests.values()].map((request) => request.done))]);
      clearTimeout(late);
      if (this.#requests.size) {
        this.log.warning("calls did not end in time", { open: this.#requests.size });
      }
    }
    for (const end of this.#onStop) {
      await end();
    }
  }

  // What the connection asks.

  hello() {
    return { methods: [...this.#methods.keys()], window: this.#window };
  }

  welcomed() {
    for (const handler of this.#handlers) {
      this.send(this.#listen(handler));
    }
    if (this.#saysReady && !this.#stopping) {
      this.send({ kind: kinds.CALL, id: this.nextId(), name: "$bus.ready", priority: 1 });
    }
  }

  lost() {
    super.lost();
    this.#lanes.clear();
    for (const request of this.#requests.values()) {
      request.cancel();
    }
  }

  receive(frame) {
    if (frame.kind === kinds.CALL) {
      this.#called(frame);
    } else if (frame.kind === kinds.MESSAGE) {
      this.#lanes.get(frame.id)?.(frame);
    } else if (frame.id % 2 || !frame.id) {
      super.receive(frame);
    } else {
      const request = this.#requests.get(frame.id);
      if (frame.kind === kinds.CANCEL) {
        request?.cancel();
      }
      request?.flow.receive(frame);
    }
  }

  #listen({ pattern, handle, raw }) {
    const id = this.nextId();
    let last = Promise.resolve();
    let waiting = 0;
    let missed = 0;
    this.#lanes.set(id, (frame) => {
      if (waiting >= 1024) {
        missed += 1;
        return;
      }
      waiting += 1;
      last = last.then(async () => {
        waiting -= 1;
        const lost = missed + Number(frame.headers.missed ?? 0);
        missed = 0;
        const message = { subject: frame.name, caller: frame.headers.from, headers: frame.headers, missed: lost };
        try {
          message.payload = raw ? frame.payload : fromBytes(frame.payload);
          await current.run({ trace: spanOf(frame.headers) }, () => handle(message));
        } catch (error) {
          this.log.error("a handler failed", { subject: frame.name, error: String(error?.stack ?? error) });
        }
      });
    });
    return { kind: kinds.SUBSCRIBE, id, name: pattern };
  }

  #called(frame) {
    let method = this.#methods.get(frame.name);
    if (frame.name === "$ping") {
      this.say({ kind: kinds.ANSWER, id: frame.id, priority: frame.priority, payload: frame.payload });
      return;
    }
    if (frame.name === "$config" && this.#onConfig) {
      method = { raw: false, run: (request) => this.#configure(request) };
    }
    if (this.#stopping) {
      this.say(errorFrame(frame, "Unavailable", "stopping"));
    } else if (!method) {
      this.say(errorFrame(frame, "NoSuchMethod", "no such method"));
    } else {
      const request = requestOf(frame, new Flow((said) => this.say(said), frame));
      this.#requests.set(frame.id, request);
      request.done = this.#serve(request, method, frame);
    }
  }

  async #serve(request, method, frame) {
    let answer;
    try {
      request.payload = method.raw ? frame.payload : fromBytes(frame.payload);
      const result = await current.run(request, () => this.#run(method, request));
      answer = { kind: kinds.ANSWER, id: frame.id, priority: frame.priority, payload: toBytes(result) };
    } catch (error) {
      if (error instanceof classes.BusError) {
        answer = errorFrame(frame, error.code, error.message);
      } else {
        this.log.error("a method failed", { method: frame.name, error: String(error?.stack ?? error) });
        answer = errorFrame(frame, "Failed", String(error));
      }
    }
    if (this.#requests.get(frame.id) === request) {
      this.#requests.delete(frame.id);
    }
    if (!request.signal.aborted) {
      this.say(answer);
    }
  }

  /** Run a method; send what it yields, or collect it for a caller that takes no stream. */
  async #run(method, request) {
    const result = await method.run(request);
    if (typeof result?.[Symbol.asyncIterator] !== "function" || typeof result.next !== "function") {
      return result;
    }
    const items = [];
    for (;;) {
      const { value, done } = await result.next();
      if (done) {
        return request.streams ? value : items;
      }
      if (!request.streams) {
        items.push(value);
      } else if (!(await request.flow.put(toBytes(value)))) {
        await result.return();
        throw new classes.Cancelled("the caller wants no more");
      }
    }
  }

  async #configure(request) {
    await this.#onConfig(request.payload);
    this.config = request.payload;
  }
}

function requestOf(frame, flow) {
  const abort = new AbortController();
  const due = frame.deadline ? performance.now() + frame.deadline : undefined;
  return {
    method: frame.name,
    caller: frame.headers.from,
    headers: frame.headers,
    priority: frame.priority,
    streams: Boolean(frame.flags & STREAM),
    trace: spanOf(frame.headers) ?? undefined,
    signal: abort.signal,
    flow,
    payload: undefined,
    /** Milliseconds that are left; undefined: any number. */
    get remaining() {
      return due === undefined ? undefined : Math.max(due - performance.now(), 0);
    },
    cancel: () => abort.abort(),
    async *items({ raw = false } = {}) {
      for (let item; (item = await flow.next()); ) {
        yield raw ? item.payload : fromBytes(item.payload);
      }
    },
  };
}

module.exports = { Plugin };
