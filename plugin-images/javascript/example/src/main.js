// Estimates the reading time of every note beside this file, again and again; nothing but node's own modules.
'use strict';

const fs = require('node:fs');
const path = require('node:path');

const config = JSON.parse(fs.readFileSync(process.env.CRUCIBLE_CONFIG, 'utf8'));
const notes = path.join(__dirname, 'notes');

/** Returns the seconds a text takes to read. */
function secondsToRead(text) {
  const words = text.split(/\s+/).filter((word) => word !== '').length;
  return Math.round((words * 60) / config.wordsPerMinute);
}

function report() {
  const lines = fs
    .readdirSync(notes)
    .sort()
    .map((name) => `${name} ${secondsToRead(fs.readFileSync(path.join(notes, name), 'utf8'))} s`);
  console.log(`${lines.length} notes: ${lines.join(', ')}`);
}

console.log(`reading-time is up as ${process.env.CRUCIBLE_INSTANCE}, node ${process.version}`);
report();
const timer = setInterval(report, config.intervalSeconds * 1000);

process.on('SIGTERM', () => {
  clearInterval(timer);
  console.log('asked to stop: goodbye');
  process.exit(0);
});
