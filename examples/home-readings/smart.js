// SMART App Launch 2.2 for a public app: discovery, authorization code with PKCE, and the checks that an answer needs.
import { CLIENT_ID, SCOPE } from "./config.js";

const PENDING = "pending request"; // in sessionStorage until the answer comes; tokens are in this page's memory only
const REDIRECT_URI = location.origin + location.pathname;

const text = (bytes) => btoa(String.fromCharCode(...bytes)).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
const random = () => text(crypto.getRandomValues(new Uint8Array(32)));

async function json(answer) {
  const body = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Error(body.error_description ?? body.error ?? `The server answered ${answer.status}.`);
  return body;
}

/** Leave for the server's sign-in. */
export async function connect(base) {
  const server = await json(await fetch(`${base}/.well-known/smart-configuration`));
  const [state, verifier] = [random(), random()];
  sessionStorage.setItem(PENDING, JSON.stringify({ base, server, state, verifier }));
  const challenge = new Uint8Array(await crypto.subtle.digest("SHA-256", new TextEncoder().encode(verifier)));
  const asked = new URLSearchParams({
    response_type: "code", client_id: CLIENT_ID, redirect_uri: REDIRECT_URI, scope: SCOPE, aud: base, state,
    code_challenge: text(challenge), code_challenge_method: "S256",
  });
  location.assign(`${server.authorization_endpoint}?${asked}`);
}

/** The connection that the answer in this address gives: `base`, `server` and the token response. Null if there is no answer. */
export async function connected() {
  const answer = new URLSearchParams(location.search);
  if (!answer.has("state")) return null;
  const pending = JSON.parse(sessionStorage.getItem(PENDING));
  sessionStorage.removeItem(PENDING);
  history.replaceState(null, "", REDIRECT_URI); // the code neither stays in the address nor is sent twice
  if (pending?.state !== answer.get("state")) throw new Error("This answer belongs to no request of this page.");
  const { base, server, verifier } = pending;
  const isNamed = server.authorization_response_iss_parameter_supported;
  if (isNamed && answer.get("iss") !== server.issuer) throw new Error("This answer is of another server."); // RFC 9207
  if (answer.get("error") === "access_denied") throw new Error("You did not allow the access.");
  if (answer.has("error")) throw new Error(answer.get("error_description") ?? answer.get("error"));
  const form = new URLSearchParams({
    grant_type: "authorization_code", client_id: CLIENT_ID, redirect_uri: REDIRECT_URI, code: answer.get("code"), code_verifier: verifier,
  });
  return { base, server, ...(await json(await fetch(server.token_endpoint, { method: "POST", body: form }))) };
}

/** One FHIR request: `status`, and the body as an object. A request that the server refuses is an answer, too. */
export async function request(connection, path, body) {
  const headers = { Authorization: `Bearer ${connection.access_token}`, Accept: "application/fhir+json" };
  if (body) Object.assign(headers, { "Content-Type": "application/fhir+json", Prefer: "return=representation" });
  const answer = await fetch(`${connection.base}/${path}`, { headers, method: body ? "POST" : "GET", body: body && JSON.stringify(body) });
  return { status: answer.status, body: await answer.json().catch(() => ({})) };
}

/** Give the access back (RFC 7009). */
export async function disconnect({ server, access_token }) {
  await fetch(server.revocation_endpoint, { method: "POST", body: new URLSearchParams({ client_id: CLIENT_ID, token: access_token }) });
}
