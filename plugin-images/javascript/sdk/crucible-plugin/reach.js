// How a broker is reached: by a Unix socket, or by TLS 1.3 and nobody but whom the sandbox's own authority vouches for.
"use strict";

const { readFileSync } = require("node:fs");
const net = require("node:net");

const SCHEME = "tls://";
const HANDSHAKE = 10_000;
/** What a broker behind a Unix socket is called in its certificate. */
const LOCAL_NAME = "crucible-bus";

/** Connect to a path, `tls://HOST:PORT` or `tls:///PATH`; call `connected` once it is who it should be. */
function reach(address, authority, connected) {
  if (!address.includes("://")) {
    return net.connect(address, connected);
  }
  if (!authority) {
    throw new Error("CRUCIBLE_BUS_CA is not set: whom to believe at the other end is not known");
  }
  const tls = require("node:tls");
  const place = placeOf(address);
  const options = { ca: readFileSync(authority), minVersion: "TLSv1.3", rejectUnauthorized: true };
  const socket = tls.connect({ ...place, ...options }, () => {
    clearTimeout(late);
    socket.setNoDelay(true);
    connected();
  });
  const late = setTimeout(() => socket.destroy(new Error("the broker does not greet")), HANDSHAKE);
  socket.once("close", () => clearTimeout(late));
  return socket;
}

function placeOf(address) {
  const rest = address.startsWith(SCHEME) ? address.slice(SCHEME.length) : "";
  if (rest.startsWith("/")) {
    return { path: rest, servername: LOCAL_NAME };
  }
  const { v6, name, port } = /^(?:\[(?<v6>[^\]/]+)\]|(?<name>[^:/]+)):(?<port>[0-9]{1,5})$/.exec(rest)?.groups ?? {};
  const host = v6 ?? name;
  if (!host) {
    throw new Error(`CRUCIBLE_BUS is ${address}: it should be a path, tls://HOST:PORT or tls:///PATH`);
  }
  return { host, port: Number(port), ...(net.isIP(host) ? {} : { servername: host }) };
}

module.exports = { reach };
