// How a client in Node.js talks with its test: one line of JSON at a time, over standard input and output.
import { webcrypto } from "node:crypto";
import { createInterface } from "node:readline";

globalThis.crypto ??= webcrypto; // Node.js 18 has it under its own name only
globalThis.CryptoKey ??= webcrypto.CryptoKey;

const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();

export async function hear() {
  return JSON.parse((await lines.next()).value);
}

export function tell(message) {
  process.stdout.write(`${JSON.stringify(message)}\n`);
}

/** Let the browser open this address. Returns the request that then reached the client's own server. */
export async function visit(address) {
  tell({ open: String(address) });
  const { method, url, body } = await hear();
  if (method === "GET") return new Request(url);
  return new Request(url, { method, body, headers: { "content-type": "application/x-www-form-urlencoded" } });
}

let registration;

/** End this registration (RFC 7592) when the client has run, so that the next may have its name. */
export function registered(metadata) {
  registration = metadata;
}

/** Run a client with what the test asks of it, and tell what it found, or how it failed. */
export async function run(client) {
  let answer;
  try {
    answer = { done: await client(await hear()) };
  } catch (error) {
    const reason = error.error_description ?? error.cause?.error_description ?? error.cause?.message ?? "";
    answer = { error: [error.code ?? error.name, error.error ?? error.message, reason].join(": ") };
  }
  if (registration) {
    const headers = { authorization: `Bearer ${registration.registration_access_token}` };
    await fetch(registration.registration_client_uri, { method: "DELETE", headers });
  }
  process.stdout.write(`${JSON.stringify(answer)}\n`, () => process.exit(0));
}
