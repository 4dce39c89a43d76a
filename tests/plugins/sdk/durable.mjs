// The same, in JavaScript.
import { Plugin } from "crucible-plugin";

const plugin = new Plugin();
const running = plugin.run();
const { events, log } = plugin;

log.info("begun", { nothing: (await events.take("notes.*", { timeout: 500 })) === undefined });
const numbers = [];
for (let n = 0; n < 2; n += 1) {
  numbers.push(await events.put("notes.saved", { n }));
}
for (let times = 0; times < 2; times += 1) {
  numbers.push(await events.put("notes.saved", Buffer.from([0, 1]), { id: "once" }));
}
log.info("kept", { numbers });
const told = ({ subject, caller, payload }) => log.info("taken", { subject, caller, payload });
const first = await events.take("notes.*");
told(first);
const second = await events.take("notes.*", { done: first });
told(second);
const last = await events.take("notes.*", { done: second, raw: true });
told({ ...last, payload: [...last.payload] });
await events.take("notes.*", { done: last, timeout: 500 });
const over = new AbortController();
plugin.onStop(() => over.abort());
log.info("follows");
for await (const { caller, payload } of events.follow("notes.*", { signal: over.signal })) {
  log.info("followed", { caller, payload });
}
await running;
