// A plugin that uses all of the SDK; tests call it from the other side.
import { BusError, NotPermitted, Plugin } from "crucible-plugin";

const plugin = new Plugin({ drain: 30_000 });
const heard = [];

async function told(work) {
  try {
    return (await work()) ?? null;
  } catch (error) {
    if (!(error instanceof BusError)) {
      throw error;
    }
    return { code: error.code, retry: error.retry, why: error.message };
  }
}

plugin.method("split", ({ payload }) => payload.text.split(" "));
plugin.method("quick", ({ caller, method }) => ({ caller, method }));
plugin.method("echo-bytes", ({ payload }) => payload, { raw: true });
plugin.method("fail", ({ payload }) => {
  throw new TypeError(`no ${payload}`);
});
plugin.method("relay", async ({ payload }) => {
  const came = await told(() => plugin.call(payload.to, payload.with));
  if (came?.code) {
    plugin.log.info("no answer", { code: came.code });
  }
  return came;
});
plugin.method("count", async function* count({ payload }) {
  if (typeof payload !== "number") {
    throw new TypeError("count to what?");
  }
  for (let number = 0; number < payload; number += 1) {
    yield number;
  }
  return "done";
});
plugin.method("add_up", async (request) => {
  let sum = 0;
  for await (const item of request.items()) {
    sum += item;
  }
  return sum;
});
plugin.method("read_all", async ({ payload }) => {
  const stream = await plugin.stream(payload.from, payload.with);
  const items = [];
  for await (const item of stream) {
    items.push(item);
  }
  return [...items, stream.result];
});
plugin.method("what_was_heard", () => heard);
plugin.method("publish", async ({ payload }) => {
  try {
    return await plugin.publish(payload, { note: 7 }, { confirm: true });
  } catch (error) {
    if (error instanceof NotPermitted) {
      return error.message;
    }
    throw error;
  }
});
plugin.method("store", ({ payload: [verb, key, value, revision] }) =>
  told(async () => {
    if (verb === "keys") {
      const keys = [];
      for await (const found of plugin.store.keys(key)) {
        keys.push(found);
      }
      return keys;
    }
    return plugin.store[verb](key, value, { revision });
  }),
);
plugin.method("watch", async function* watch({ payload }) {
  for await (const change of plugin.store.watch(payload)) {
    yield [change.key, change.deleted, change.value ?? null, change.revision];
  }
});
plugin.method("config", () => plugin.config);
plugin.method("last_long", async () => {
  plugin.log.info("began");
  await plugin.call("gate.open", undefined, { timeout: 60_000 });
  return "ended";
});
plugin.method("log", ({ payload }) => plugin.log.info("a line", { number: payload }));
await plugin.subscribe("notes.*", ({ subject, caller, payload }) => heard.push([subject, caller, payload]));
plugin.onConfig((config) => {
  if ("refuse" in config) {
    throw new Error("not this");
  }
});
plugin.onStop(async () => {
  try {
    await plugin.call("gate.goodbye");
  } catch (error) {
    if (!(error instanceof BusError)) {
      throw error;
    }
  }
});

await plugin.run();
plugin.log.info("left");
