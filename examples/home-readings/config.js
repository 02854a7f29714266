// Where the app is registered. `?iss=` in the address names another server that knows it by the same client id.
export const CLIENT_ID = "home-readings";
export const FHIR_BASE = "http://127.0.0.1:8000/fhir";
export const SCOPE = "launch/patient patient/Patient.r patient/Observation.crs";
