// A plugin that has no bus, and tries anyway.
const { Plugin, Unavailable } = require("crucible-plugin");

const plugin = new Plugin();

async function main() {
  const running = plugin.run(); // from here on SIGTERM is a request
  try {
    await plugin.call("other.method");
  } catch (error) {
    if (!(error instanceof Unavailable)) {
      throw error;
    }
    plugin.log.info("refused", { why: error.message });
  }
  await running;
}

main();
