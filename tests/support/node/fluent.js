// Emits records with the fluent-logger package and waits until it says of each that it is delivered.
// node fluent.js '{"options": {…}, "first": 0, "count": 100}'; prints how many were, then the errors.
"use strict";
const { createFluentSender } = require("fluent-logger");

const { options, first, count, ca } = JSON.parse(process.argv[2]);
if (ca) options.tlsOptions = { ca: require("fs").readFileSync(ca), servername: "localhost" };
const sender = createFluentSender("node", options);
const errors = [];
let delivered = 0;
let settled = 0;

function settle(error) {
  if (error) errors.push(String(error.message || error));
  else delivered += 1;
  settled += 1;
  if (settled === count) process.exit(0);
}

// A refused handshake ends the program without a word to the callbacks.
process.on("exit", () => console.log("\n" + JSON.stringify({ delivered, errors: errors.slice(0, 3) })));
sender.on("error", () => {});
for (let n = first; n < first + count; n++) sender.emit("audit", { n, action: "user.login", actor: `u_${n % 7}` }, settle);
