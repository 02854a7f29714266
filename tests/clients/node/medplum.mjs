// The FHIR calls of @medplum/core, as it is shipped.  `node medplum.mjs BASE TOKEN`.

import { MedplumClient, MemoryStorage, ClientStorage } from "@medplum/core";

import { attempt, require } from "./calls.mjs";

const [base, token] = process.argv.slice(2);
const url = new URL(base);
const client = new MedplumClient({
  baseUrl: `${url.origin}/`, fhirUrlPath: url.pathname.slice(1), accessToken: token, cacheTime: 0, storage: new ClientStorage(new MemoryStorage()),
});
const SYSTEM = "https://clients.example/medplum";
const person = (value) => ({ resourceType: "Patient", identifier: [{ system: SYSTEM, value }], name: [{ family: "Tour" }] });
const code = { coding: [{ system: "http://loinc.org", code: "8867-4" }] };

const made = await attempt("createResource", () => client.createResource(person("1")));
const { id } = made;
await attempt("createResourceIfNoneExist", async () =>
  require((await client.createResourceIfNoneExist(person("1"), `identifier=${SYSTEM}|1`)).id === id));
await attempt("readResource", async () => require((await client.readResource("Patient", id)).id === id));
await attempt("readReference", async () => require((await client.readReference({ reference: `Patient/${id}` })).id === id));
await attempt("updateResource", () => client.updateResource({ ...made, birthDate: "1980-01-02" }));
await attempt("upsertResource", () => client.upsertResource({ ...person("1"), birthDate: "1981-01-02" }, `identifier=${SYSTEM}|1`));
await attempt("patchResource", () => client.patchResource("Patient", id, [{ op: "add", path: "/active", value: true }]));
const result = await attempt("createResource of a result", () =>
  client.createResource({ resourceType: "Observation", status: "final", code, subject: { reference: `Patient/${id}` } }));
await attempt("search", async () => require((await client.search("Observation", { patient: "teen", _count: "5" })).entry.length === 5));
await attempt("search by text", async () => require((await client.search("Observation", "patient=teen&_count=5")).entry.length === 5));
await attempt("searchOne", async () => require((await client.searchOne("Patient", `identifier=${SYSTEM}|1`)).id === id));
await attempt("searchResources", async () => require((await client.searchResources("Observation", "patient=teen&_count=5")).length === 5));
await attempt("searchResourcePages", async () => {
  let count = 0;
  for await (const page of client.searchResourcePages("Observation", "patient=teen&_count=10")) count += page.length;
  require(count > 20);
});
await attempt("readHistory", async () => require((await client.readHistory("Patient", id)).entry.length >= 2));
await attempt("readVersion", async () => require((await client.readVersion("Patient", id, made.meta.versionId)).id === id));
await attempt("readPatientEverything", async () => require((await client.readPatientEverything(id)).entry.length));
await attempt("readPatientSummary", async () => require((await client.readPatientSummary("adult")).type === "document"));
await attempt("validateResource", () => client.validateResource(person("2")));
await attempt("valueSetExpand", async () =>
  require((await client.valueSetExpand({ url: "http://hl7.org/fhir/ValueSet/administrative-gender" })).expansion.contains.length === 4));
const binary = await attempt("createBinary", () => client.createBinary({ data: "a text", contentType: "text/plain" }));
await attempt("download", async () => require((await (await client.download(client.fhirUrl("Binary", binary.id))).text()) === "a text"));
await attempt("createComment", () => client.createComment(made, "A comment"));
for (const type of ["batch", "transaction"]) {
  const entry = [{ resource: person("3"), request: { method: "POST", url: "Patient" } }];
  await attempt(`executeBatch, ${type}`, async () =>
    require((await client.executeBatch({ resourceType: "Bundle", type, entry })).entry[0].response.status.startsWith("201")));
}
await attempt("bulkExport", async () => require((await client.bulkExport("", "Organization", undefined, { pollStatusOnAccepted: true })).output));
await attempt("deleteResource of a result", () => client.deleteResource("Observation", result.id));
await attempt("deleteResource", () => client.deleteResource("Patient", id));
