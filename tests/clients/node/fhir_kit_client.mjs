// The calls of fhir-kit-client, as it is shipped.  `node fhir_kit_client.mjs BASE TOKEN`.

import { Client } from "fhir-kit-client";

import { attempt, require } from "./calls.mjs";

const [baseUrl, bearerToken] = process.argv.slice(2);
const client = new Client({ baseUrl, bearerToken });
const SYSTEM = "https://clients.example/fhir-kit-client";
const person = (value) => ({ resourceType: "Patient", identifier: [{ system: SYSTEM, value }], name: [{ family: "Tour" }] });
const resourceType = "Patient";

await attempt("capabilityStatement", async () => require((await client.capabilityStatement()).fhirVersion === "4.0.1"));
await attempt("smartAuthMetadata", async () => require((await client.smartAuthMetadata()).tokenUrl));
const made = await attempt("create", () => client.create({ resourceType, body: person("1") }));
const { id } = made;
await attempt("read", async () => require((await client.read({ resourceType, id })).id === id));
await attempt("vread", async () => require((await client.vread({ resourceType, id, version: made.meta.versionId })).id === id));
await attempt("update", () => client.update({ resourceType, id, body: { ...made, birthDate: "1980-01-02" } }));
await attempt("update by search", () =>
  client.update({ resourceType, searchParams: { identifier: `${SYSTEM}|1` }, body: { ...made, birthDate: "1981-01-02" } }));
await attempt("patch", () => client.patch({ resourceType, id, jsonPatch: [{ op: "add", path: "/active", value: true }] }));
const code = { coding: [{ system: "http://loinc.org", code: "8867-4" }] };
const result = { resourceType: "Observation", status: "final", code, subject: { reference: `Patient/${id}` } };
const observed = await attempt("create of a result", () => client.create({ resourceType: "Observation", body: result }));

const teen = { patient: "teen", _count: 5 };
await attempt("search", async () => require((await client.search({ resourceType: "Observation", searchParams: teen })).entry.length === 5));
await attempt("search by POST", async () =>
  require((await client.search({ resourceType: "Observation", searchParams: teen, options: { postSearch: true } })).entry.length === 5));
await attempt("resourceSearch", async () =>
  require((await client.resourceSearch({ resourceType, searchParams: { identifier: `${SYSTEM}|1` } })).total === 1));
await attempt("resourceSearch by POST", async () =>
  require((await client.resourceSearch({ resourceType, searchParams: { identifier: `${SYSTEM}|1` }, options: { postSearch: true } })).total === 1));
await attempt("systemSearch", () => client.systemSearch({ searchParams: { _type: "Patient,Observation", _id: id } }));
await attempt("systemSearch by POST", () =>
  client.systemSearch({ searchParams: { _type: "Patient,Observation", _id: id }, options: { postSearch: true } }));
const compartment = { resourceType: "Patient", id };
await attempt("compartmentSearch", async () =>
  require((await client.compartmentSearch({ resourceType: "Observation", compartment, searchParams: { code: "8867-4" } })).total === 1));
await attempt("search of a compartment", () => client.search({ resourceType: "Observation", compartment }));
await attempt("chained search", async () =>
  require((await client.search({ resourceType: "Observation", searchParams: { "patient.identifier": `${SYSTEM}|1` } })).total === 1));
const first = await client.search({ resourceType: "Observation", searchParams: teen });
const next = await attempt("nextPage", async () => { const page = await client.nextPage({ bundle: first }); require(page.entry.length); return page; });
await attempt("nextPage of a next page", async () => require((await client.nextPage({ bundle: next })).entry.length));

await attempt("history", () => client.history({ resourceType, id }));
await attempt("resourceHistory", async () => require((await client.resourceHistory({ resourceType, id })).total >= 2));
await attempt("typeHistory", async () => require((await client.typeHistory({ resourceType })).entry.length));
await attempt("systemHistory", async () => require((await client.systemHistory()).entry.length));

await attempt("operation, GET", () => client.operation({ name: "$everything", resourceType, id, method: "GET" }));
await attempt("operation, POST", () => client.operation({ name: "everything", resourceType, id }));
await attempt("$validate", () => client.operation({ name: "$validate", resourceType, input: person("2") }));
await attempt("$expand", () =>
  client.operation({ name: "expand", resourceType: "ValueSet", method: "GET", input: { url: "http://hl7.org/fhir/ValueSet/administrative-gender" } }));
await attempt("$lastn", () => client.operation({ name: "lastn", resourceType: "Observation", method: "GET", input: { patient: "teen", category: "laboratory" } }));

const entry = [{ resource: person("3"), request: { method: "POST", url: "Patient" } }, { request: { method: "GET", url: `Patient/${id}` } }];
await attempt("batch", async () => require((await client.batch({ body: { resourceType: "Bundle", type: "batch", entry } })).entry.length === 2));
await attempt("transaction", async () =>
  require((await client.transaction({ body: { resourceType: "Bundle", type: "transaction", entry } })).entry.length === 2));

await attempt("resolve a relative reference", async () => require((await client.resolve({ reference: `Patient/${id}` })).id === id));
await attempt("resolve an absolute reference", async () => require((await client.resolve({ reference: `${baseUrl}/Patient/${id}` })).id === id));
await attempt("resolve in a bundle", () => client.resolve({ reference: first.entry[0].fullUrl, context: first }));
await attempt("request", async () => require((await client.request(`Patient/${id}`)).id === id));
await attempt("errors hold an OperationOutcome", async () => {
  try {
    await client.read({ resourceType, id: "nobody-has-this" });
  } catch (error) {
    require(error.response.status === 404 && error.response.data.resourceType === "OperationOutcome");
    return;
  }
  require(false);
});
await attempt("delete of a result", () => client.delete({ resourceType: "Observation", id: observed.id }));
await attempt("delete", () => client.delete({ resourceType, id }));
