// Knows some words, and says which of a text it does not know.
const { Plugin } = require("crucible-plugin");

const plugin = new Plugin();
const known = new Set(plugin.config.words);

plugin.method("unknown", ({ payload }) =>
  String(payload.text)
    .toLowerCase()
    .split(/[^a-z']+/)
    .filter((word) => word && !known.has(word)),
);

plugin.run();
