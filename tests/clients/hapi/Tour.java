// A tour of HAPI FHIR's client as it is shipped: default encoding, strict parser, the capability statement checked first.
// Arguments: base URL, access token.  Prints one line for each call: "ok NAME", or "failed NAME: what was thrown".

import ca.uhn.fhir.context.FhirContext;
import ca.uhn.fhir.parser.StrictErrorHandler;
import ca.uhn.fhir.rest.api.*;
import ca.uhn.fhir.rest.client.api.IGenericClient;
import ca.uhn.fhir.rest.client.interceptor.BearerTokenAuthInterceptor;
import ca.uhn.fhir.rest.gclient.*;
import ca.uhn.fhir.rest.server.exceptions.*;
import java.util.*;
import org.hl7.fhir.instance.model.api.*;
import org.hl7.fhir.r4.model.*;

public class Tour {
  static final String SYSTEM = "urn:hapi-tour";
  static IGenericClient client;
  static Patient patient;
  static Observation observation;

  interface Call { void make() throws Exception; }

  static void call(String name, Call call) {
    try {
      call.make();
      System.out.println("ok " + name);
    } catch (Throwable error) {
      System.out.println("failed " + name + ": " + String.valueOf(error).replaceAll("\\s+", " "));
    }
  }

  static void require(boolean holds) {
    if (!holds) throw new AssertionError("the answer is another");
  }

  static <T extends Throwable> void refused(Class<T> kind, Call call) throws Exception {
    try {
      call.make();
    } catch (Throwable error) {
      if (kind.isInstance(error)) return;
      throw error;
    }
    throw new AssertionError("was not refused");
  }

  static Patient newPatient(String value) {
    Patient made = new Patient();
    made.addIdentifier().setSystem(SYSTEM).setValue(value);
    made.addName().setFamily("Hapi-" + value).addGiven("Tour");
    made.setBirthDateElement(new DateType("1980-02-03"));
    made.setActive(true);
    return made;
  }

  static Observation newObservation(String value) {
    Observation made = new Observation();
    made.addIdentifier().setSystem(SYSTEM).setValue(value);
    made.setStatus(Observation.ObservationStatus.FINAL);
    made.getCode().addCoding().setSystem("http://loinc.org").setCode("29463-7");
    made.setSubject(new Reference(patient.getIdElement().toUnqualifiedVersionless()));
    made.setValue(new Quantity().setValue(new java.math.BigDecimal("70.50")).setUnit("kg").setSystem("http://unitsofmeasure.org").setCode("kg"));
    made.setEffective(new DateTimeType("2026-01-02T03:04:05Z"));
    return made;
  }

  static IQuery<Bundle> patients() { return client.search().forResource(Patient.class).returnBundle(Bundle.class); }
  static IQuery<Bundle> observations() { return client.search().forResource(Observation.class).returnBundle(Bundle.class); }
  static ICriterion<?> byIdentifier(String value) { return Patient.IDENTIFIER.exactly().systemAndIdentifier(SYSTEM, value); }

  public static void main(String[] arguments) {
    FhirContext context = FhirContext.forR4();
    context.setParserErrorHandler(new StrictErrorHandler());
    context.getRestfulClientFactory().setSocketTimeout(120_000);
    client = context.newRestfulGenericClient(arguments[0]);
    client.registerInterceptor(new BearerTokenAuthInterceptor(arguments[1]));
    String run = Long.toString(System.nanoTime());

    call("capabilities", () -> require(client.capabilities().ofType(CapabilityStatement.class).execute().getFhirVersion() == Enumerations.FHIRVersion._4_0_1));
    call("create", () -> patient = (Patient) client.create().resource(newPatient(run)).prefer(PreferReturnEnum.REPRESENTATION).execute().getResource());
    call("create-minimal", () -> require(client.create().resource(newPatient(run + "-minimal")).prefer(PreferReturnEnum.MINIMAL).execute().getCreated()));
    call("create-outcome", () -> client.create().resource(newPatient(run + "-outcome")).prefer(PreferReturnEnum.OPERATION_OUTCOME).execute());
    call("create-observation", () -> observation = (Observation) client.create().resource(newObservation(run)).execute().getResource());
    call("create-invalid", () -> refused(InvalidRequestException.class, () -> client.create().resource(new Observation()).execute()));
    call("create-conditional", () -> require(!Boolean.TRUE.equals(client.create().resource(newPatient(run)).conditional().where(byIdentifier(run)).execute().getCreated())));
    call("create-conditional-by-url", () -> client.create().resource(newPatient(run + "-c")).conditionalByUrl("Patient?identifier=" + SYSTEM + "|" + run + "-c").execute());
    call("read", () -> require(client.read().resource(Patient.class).withId(patient.getIdElement().getIdPart()).execute().getActive()));
    call("read-by-url", () -> client.read().resource(Patient.class).withUrl(patient.getIdElement().toVersionless()).execute());
    call("read-absent", () -> refused(ResourceNotFoundException.class, () -> client.read().resource(Patient.class).withId("nobody").execute()));
    call("read-elements", () -> client.read().resource(Patient.class).withId(patient.getIdElement().getIdPart()).elementsSubset("name").execute());
    call("read-summary", () -> client.read().resource(Patient.class).withId(patient.getIdElement().getIdPart()).summaryMode(SummaryEnum.TRUE).execute());
    call("read-unless-modified", () -> require(client.read().resource(Patient.class).withId(patient.getIdElement().getIdPart()).ifVersionMatches(patient.getMeta().getVersionId()).returnNull().execute() == null));
    call("vread", () -> client.read().resource(Patient.class).withIdAndVersion(patient.getIdElement().getIdPart(), "1").execute());
    call("digits", () -> require(client.read().resource(Observation.class).withId(observation.getIdElement().getIdPart()).execute().getValueQuantity().getValueElement().getValueAsString().equals("70.50")));
    call("update", () -> { patient.addTelecom().setSystem(ContactPoint.ContactPointSystem.PHONE).setValue("1"); patient = (Patient) client.update().resource(patient).prefer(PreferReturnEnum.REPRESENTATION).execute().getResource(); });
    call("update-stale", () -> { Patient stale = patient.copy(); stale.setId(new IdType("Patient", patient.getIdElement().getIdPart(), "1")); refused(BaseServerResponseException.class, () -> client.update().resource(stale).withAdditionalHeader("If-Match", "W/\"1\"").execute()); });
    call("update-as-create", () -> { Patient own = newPatient(run + "-own"); own.setId("hapi-" + run); require(client.update().resource(own).execute().getCreated()); });
    call("update-conditional", () -> client.update().resource(newObservation(run)).conditional().where(Observation.IDENTIFIER.exactly().systemAndIdentifier(SYSTEM, run)).execute());
    call("update-conditional-by-url", () -> client.update().resource(newObservation(run)).conditionalByUrl("Observation?identifier=" + SYSTEM + "|" + run).execute());
    call("patch-json", () -> client.patch().withBody("[{\"op\":\"replace\",\"path\":\"/active\",\"value\":false}]").withId(patient.getIdElement().toUnqualifiedVersionless()).execute());
    call("patch-xml", () -> client.patch().withBody("<diff xmlns:f=\"http://hl7.org/fhir\"><replace sel=\"f:Patient/f:active/@value\">true</replace></diff>").withId(patient.getIdElement().toUnqualifiedVersionless()).execute());
    call("patch-fhirpath", () -> {
      Parameters changes = new Parameters();
      Parameters.ParametersParameterComponent operation = changes.addParameter().setName("operation");
      operation.addPart().setName("type").setValue(new CodeType("replace"));
      operation.addPart().setName("path").setValue(new StringType("Patient.birthDate"));
      operation.addPart().setName("value").setValue(new DateType("1981-02-03"));
      client.patch().withFhirPatch(changes).withId(patient.getIdElement().toUnqualifiedVersionless()).execute();
    });
    call("patch-conditional", () -> client.patch().withBody("[{\"op\":\"replace\",\"path\":\"/status\",\"value\":\"amended\"}]").conditional(Observation.class).where(Observation.IDENTIFIER.exactly().systemAndIdentifier(SYSTEM, run)).execute());
    call("search-string", () -> require(patients().where(Patient.FAMILY.matches().value("Hapi-" + run)).execute().getEntry().size() >= 1));
    call("search-token", () -> require(patients().where(byIdentifier(run)).execute().getEntry().size() == 1));
    call("search-date", () -> patients().where(Patient.BIRTHDATE.exactly().day("1981-02-03")).execute());
    call("search-reference", () -> require(observations().where(Observation.SUBJECT.hasId(patient.getIdElement().toUnqualifiedVersionless())).execute().getEntry().size() == 1));
    call("search-quantity", () -> observations().where(Observation.VALUE_QUANTITY.greaterThan().number("70").andUnits("http://unitsofmeasure.org", "kg")).execute());
    call("search-post", () -> patients().where(byIdentifier(run)).usingStyle(SearchStyleEnum.POST).execute());
    call("search-get-with-search", () -> patients().where(byIdentifier(run)).usingStyle(SearchStyleEnum.GET_WITH_SEARCH).execute());
    call("search-sort-count", () -> require(patients().sort().descending(Patient.FAMILY).count(2).execute().getEntry().size() == 2));
    call("search-total", () -> require(patients().totalMode(SearchTotalModeEnum.ACCURATE).execute().getTotal() > 0));
    call("search-summary-count", () -> require(patients().summaryMode(SummaryEnum.COUNT).execute().getTotal() > 0));
    call("search-elements", () -> patients().elementsSubset("name", "identifier").count(2).execute());
    call("search-include", () -> require(observations().where(Observation.SUBJECT.hasId(patient.getIdElement().toUnqualifiedVersionless())).include(Observation.INCLUDE_SUBJECT).execute().getEntry().size() == 2));
    call("search-revinclude", () -> require(patients().where(byIdentifier(run)).revInclude(Observation.INCLUDE_SUBJECT).execute().getEntry().size() == 2));
    call("search-chained", () -> require(observations().where(Observation.SUBJECT.hasChainedProperty(Patient.FAMILY.matches().value("Hapi-" + run))).execute().getEntry().size() == 1));
    call("search-has", () -> require(patients().where(Patient.IDENTIFIER.exactly().systemAndIdentifier(SYSTEM, run)).where(new TokenClientParam("_has:Observation:subject:identifier").exactly().systemAndIdentifier(SYSTEM, run)).execute().getEntry().size() == 1));
    call("search-last-updated", () -> patients().lastUpdated(new ca.uhn.fhir.rest.param.DateRangeParam().setLowerBound("2020-01-01")).count(1).execute());
    call("search-by-url", () -> client.search().byUrl("Patient?identifier=" + SYSTEM + "|" + run).returnBundle(Bundle.class).execute());
    call("search-compartment", () -> require(client.search().byUrl(arguments[0] + "/Patient/" + patient.getIdElement().getIdPart() + "/Observation").returnBundle(Bundle.class).execute().getEntry().size() == 1));
    call("next-page", () -> require(client.loadPage().next(patients().count(1).execute()).execute().getEntry().size() == 1));
    call("history-instance", () -> require(client.history().onInstance(patient.getIdElement().toUnqualifiedVersionless()).returnBundle(Bundle.class).execute().getEntry().size() >= 2));
    call("history-count-since", () -> require(client.history().onInstance(patient.getIdElement().toUnqualifiedVersionless()).returnBundle(Bundle.class).count(1).since(new Date(0)).execute().getEntry().size() == 1));
    call("history-type", () -> client.history().onType(Patient.class).returnBundle(Bundle.class).count(1).execute());
    call("history-server", () -> client.history().onServer().returnBundle(Bundle.class).count(1).execute());
    call("transaction", () -> {
      Bundle bundle = new Bundle();
      bundle.setType(Bundle.BundleType.TRANSACTION);
      String urn = "urn:uuid:" + UUID.randomUUID();
      bundle.addEntry().setFullUrl(urn).setResource(newPatient(run + "-t")).getRequest().setMethod(Bundle.HTTPVerb.POST).setUrl("Patient");
      Observation linked = newObservation(run + "-t");
      linked.setSubject(new Reference(urn));
      bundle.addEntry().setResource(linked).getRequest().setMethod(Bundle.HTTPVerb.POST).setUrl("Observation");
      require(client.transaction().withBundle(bundle).execute().getEntry().size() == 2);
    });
    call("transaction-with-resources", () -> { List<IBaseResource> both = new ArrayList<>(List.of(newPatient(run + "-r"))); client.transaction().withResources(both).execute(); });
    call("batch", () -> {
      Bundle bundle = new Bundle();
      bundle.setType(Bundle.BundleType.BATCH);
      bundle.addEntry().getRequest().setMethod(Bundle.HTTPVerb.GET).setUrl("Patient?_count=1");
      require(client.transaction().withBundle(bundle).execute().getEntryFirstRep().getResponse().getStatus().startsWith("200"));
    });
    call("validate", () -> require(client.validate().resource(newPatient(run)).execute().getOperationOutcome() != null));
    call("everything", () -> require(client.operation().onInstance(patient.getIdElement().toUnqualifiedVersionless()).named("$everything").withNoParameters(Parameters.class).returnResourceType(Bundle.class).execute().getEntry().size() >= 2));
    call("everything-get", () -> client.operation().onInstance(patient.getIdElement().toUnqualifiedVersionless()).named("$everything").withNoParameters(Parameters.class).useHttpGet().returnResourceType(Bundle.class).execute());
    call("meta", () -> require(client.meta().get(Meta.class).fromResource(patient.getIdElement().toUnqualifiedVersionless()).execute().hasVersionId()));
    call("meta-add", () -> { Meta more = new Meta(); more.addTag().setSystem(SYSTEM).setCode("t"); require(client.meta().add().onResource(patient.getIdElement().toUnqualifiedVersionless()).meta(more).execute().hasTag()); });
    call("meta-delete", () -> { Meta less = new Meta(); less.addTag().setSystem(SYSTEM).setCode("t"); client.meta().delete().onResource(patient.getIdElement().toUnqualifiedVersionless()).meta(less).execute(); });
    call("xml-read", () -> require(client.read().resource(Patient.class).withId(patient.getIdElement().getIdPart()).encodedXml().execute().hasName()));
    call("xml-search", () -> require(patients().count(5).encodedXml().prettyPrint().execute().hasEntry()));
    call("xml-create", () -> client.create().resource(newPatient(run + "-xml")).encodedXml().execute());
    call("xml-update", () -> client.update().resource(client.read().resource(Observation.class).withId(observation.getIdElement().getIdPart()).execute()).encodedXml().execute());
    call("xml-transaction", () -> {
      Bundle bundle = new Bundle();
      bundle.setType(Bundle.BundleType.TRANSACTION);
      bundle.addEntry().setResource(newPatient(run + "-xt")).getRequest().setMethod(Bundle.HTTPVerb.POST).setUrl("Patient");
      require(client.transaction().withBundle(bundle).encodedXml().execute().getEntry().size() == 1);
    });
    call("xml-everything", () -> require(client.operation().onInstance(patient.getIdElement().toUnqualifiedVersionless()).named("$everything").withNoParameters(Parameters.class).encodedXml().returnResourceType(Bundle.class).execute().hasEntry()));
    call("xml-error", () -> refused(ResourceNotFoundException.class, () -> client.read().resource(Patient.class).withId("nobody").encodedXml().execute()));
    call("json-read", () -> client.read().resource(Patient.class).withId(patient.getIdElement().getIdPart()).encodedJson().execute());
    call("delete-conditional", () -> client.delete().resourceConditionalByType("Observation").where(Observation.IDENTIFIER.exactly().systemAndIdentifier(SYSTEM, run)).execute());
    call("delete", () -> client.delete().resourceById("Patient", "hapi-" + run).execute());
    call("read-deleted", () -> refused(ResourceGoneException.class, () -> client.read().resource(Patient.class).withId("hapi-" + run).execute()));
  }
}
