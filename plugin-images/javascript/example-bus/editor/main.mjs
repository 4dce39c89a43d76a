// Marks what the speller does not know.
import { Plugin, Unavailable } from "crucible-plugin";

const plugin = new Plugin();

plugin.method("mark", async ({ payload }) => {
  try {
    const unknown = await plugin.call("speller.unknown", { text: payload.text }, { timeout: 5000 });
    const marked = unknown.reduce((text, word) => text.replaceAll(word, `*${word}*`), String(payload.text));
    return { text: marked, unknown };
  } catch (error) {
    if (error instanceof Unavailable) {
      return { text: payload.text, unknown: [], why: error.message };
    }
    throw error;
  }
});

await plugin.run();
