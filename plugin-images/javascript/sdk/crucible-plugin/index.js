// The SDK for plugins in JavaScript: methods, calls, messages, a store, live configuration, a clean end.
"use strict";

const errors = require("./errors.js");
const { Plugin } = require("./plugin.js");

module.exports = { Plugin, ...errors.classes };
