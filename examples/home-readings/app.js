// What the person sees. All text of the server is shown as text.
import { FHIR_BASE } from "./config.js";
import { connect, connected, disconnect, request } from "./smart.js";
import { KINDS, described, reading } from "./readings.js";

const place = (id) => document.getElementById(id);
const show = (id, words) => { place(id).textContent = words; };
const reveal = (id, isShown = true) => { place(id).hidden = !isShown; };
let connection;

async function list() {
  const patient = connection.patient;
  const query = new URLSearchParams({ patient, category: "vital-signs", _sort: "-date", _count: "10" });
  const { status, body } = await request(connection, `Observation?${query}`);
  if (status !== 200) return show("status", `The readings cannot be shown: ${status}.`);
  const rows = (body.entry ?? []).map(({ resource }) => {
    const row = document.createElement("tr");
    for (const words of described(resource)) row.append(Object.assign(document.createElement("td"), { textContent: words }));
    return row;
  });
  place("readings").replaceChildren(...rows);
  show("status", rows.length ? "" : "There are no vital signs in this record.");
}

async function open() {
  const { status, body } = await request(connection, `Patient/${connection.patient}`);
  const name = body.name?.[0];
  show("name", status === 200 ? name?.text ?? [...(name?.given ?? []), name?.family].join(" ") : connection.patient);
  // What was allowed may be less than what was asked for.
  const mayAdd = connection.scope.split(" ").some((scope) => /^patient\/(Observation|\*)\.c/.test(scope));
  reveal("add", mayAdd);
  reveal("read-only", !mayAdd);
  reveal("record");
  await list();
}

async function add(event) {
  event.preventDefault();
  const { status, body } = await request(connection, "Observation", reading(connection.patient, place("kind").value, place("value").value));
  const reasons = (body.issue ?? []).map((issue) => issue.details?.text ?? issue.diagnostics ?? issue.code);
  show("outcome", status === 201 ? `${status}: added as Observation/${body.id}.` : `${status}: refused. ${reasons.join(" ")}`);
  show("body", JSON.stringify(body, null, 2));
  reveal("answer");
  if (status === 201) await list();
}

async function main() {
  const base = new URLSearchParams(location.search).get("iss") ?? FHIR_BASE;
  show("server", new URL(base).host);
  place("kind").replaceChildren(...KINDS.map((kind) => new Option(`${kind.name} (${kind.unit})`, kind.code)));
  const guarded = (step) => (event) => step(event).catch((error) => show("status", error.message));
  place("connect").addEventListener("click", guarded(() => connect(base)));
  place("add").addEventListener("submit", guarded(add));
  place("disconnect").addEventListener("click", guarded(async () => {
    await disconnect(connection);
    reveal("record", false);
    reveal("start");
    show("status", "Disconnected.");
  }));
  try {
    connection = await connected();
  } catch (error) {
    show("status", error.message);
    return reveal("start");
  }
  if (connection) return open();
  show("status", "");
  return reveal("start");
}

main().catch((error) => show("status", error.message));
