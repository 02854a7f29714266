// Vital signs as FHIR Observations: what the app writes, and how it shows what it reads.
export const KINDS = [
  { code: "29463-7", name: "Body weight", unit: "kg", ucum: "kg" },
  { code: "8867-4", name: "Heart rate", unit: "beats/minute", ucum: "/min" },
  { code: "8310-5", name: "Body temperature", unit: "°C", ucum: "Cel" },
];
const CATEGORY = "http://terminology.hl7.org/CodeSystem/observation-category";

/** An Observation of this patient, without author: the server says whose statement it is. */
export function reading(patient, code, value) {
  const { name, unit, ucum } = KINDS.find((kind) => kind.code === code);
  return {
    resourceType: "Observation",
    status: "final",
    category: [{ coding: [{ system: CATEGORY, code: "vital-signs" }] }],
    code: { coding: [{ system: "http://loinc.org", code, display: name }], text: name },
    subject: { reference: `Patient/${patient}` },
    effectiveDateTime: new Date().toISOString(),
    valueQuantity: { value: Number(value), unit, system: "http://unitsofmeasure.org", code: ucum },
  };
}

function quantity(of) {
  const { valueQuantity: value, dataAbsentReason: absent, component } = of;
  if (value) return `${value.comparator ?? ""} ${value.value} ${value.unit ?? value.code ?? ""}`.trim();
  if (component) return component.map((part) => `${part.code?.text ?? part.code?.coding?.[0]?.display ?? ""} ${quantity(part)}`).join(", ");
  return absent ? "not measured" : "see the record";
}

/** When, what, value and who says so. */
export function described(observation) {
  const { code, status, performer, effectiveDateTime, effectivePeriod } = observation;
  const when = effectiveDateTime ?? effectivePeriod?.start ?? "";
  const what = code?.text ?? code?.coding?.[0]?.display ?? code?.coding?.[0]?.code ?? "";
  const marks = status === "final" ? "" : ` (${status})`;
  const who = (performer ?? []).map((one) => one.display ?? one.reference ?? "").join(", ");
  return [when.slice(0, 16).replace("T", " "), what + marks, quantity(observation), who];
}
