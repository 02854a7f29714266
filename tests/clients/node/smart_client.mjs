// The FHIR calls of SMART's client for JavaScript, as it is shipped, in Node.js.  `node smart_client.mjs BASE TOKEN`.

import { createRequire } from "node:module";

import { attempt, require } from "./calls.mjs";

const smart = createRequire(import.meta.url)("fhirclient");
const [serverUrl, access_token] = process.argv.slice(2);
const storage = { get: async () => undefined, set: async (_, value) => value, unset: async () => true };
const state = { serverUrl, tokenResponse: { access_token, token_type: "bearer", patient: "teen" } };
const client = smart({ url: "/", headers: { host: "app.example" } }, {}, storage).client(state);
const person = { resourceType: "Patient", name: [{ family: "Tour" }] };
const code = { coding: [{ system: "http://loinc.org", code: "8867-4" }] };

const made = await attempt("create", () => client.create(person));
const { id } = made;
await attempt("request of a row", async () => require((await client.request(`Patient/${id}`)).id === id));
await attempt("update", () => client.update({ ...made, birthDate: "1980-01-02" }));
await attempt("patch", () => client.patch(`Patient/${id}`, [{ op: "add", path: "/active", value: true }]));
const result = await attempt("create of a result", () =>
  client.create({ resourceType: "Observation", status: "final", code, subject: { reference: `Patient/${id}` } }));
await attempt("patient.read", async () => require((await client.patient.read()).id === "teen"));
await attempt("patient.request", async () => require((await client.patient.request("Observation")).resourceType === "Bundle"));
await attempt("request of all pages", async () => {
  const pages = await client.request("Observation?patient=teen&_count=10", { pageLimit: 0 });
  require(pages.flatMap((page) => page.entry).length > 20);
});
await attempt("request, flat", async () => require((await client.request("Observation?patient=teen", { pageLimit: 0, flat: true })).length > 20));
await attempt("request with resolved references", async () =>
  require((await client.request(`Observation/${result.id}`, { resolveReferences: "subject" })).subject.id === id));
await attempt("getResources", async () => {
  for await (const each of client.resources("Observation?patient=teen&_count=10")) return require(each.resourceType);
  return require(false);
});
await attempt("getFhirVersion", async () => require((await client.getFhirVersion()) === "4.0.1"));
await attempt("getFhirRelease", async () => require((await client.getFhirRelease()) === 4));
await attempt("delete of a result", () => client.delete(`Observation/${result.id}`));
await attempt("delete", () => client.delete(`Patient/${id}`));
