"""The calls of fhirpy's synchronous client, as it is shipped.  ``fhirpy_tour.py BASE TOKEN``, with fhirpy on the path."""

from __future__ import annotations

import sys
from typing import Any

from calls import attempt, require
from fhirpy import SyncFHIRClient
from fhirpy.base.searchset import Raw

SYSTEM = "https://clients.example/fhirpy"
client = SyncFHIRClient(sys.argv[1], authorization=f"Bearer {sys.argv[2]}")


def patient(value: str, **more: Any) -> Any:
    return client.resource(
        "Patient", identifier=[{"system": SYSTEM, "value": value}], name=[{"family": "Tour", "given": ["Fhirpy"]}], **more
    )


def result(of: Any, **more: Any) -> Any:
    code = {"coding": [{"system": "http://loinc.org", "code": "8867-4"}]}
    return client.resource("Observation", status="final", code=code, subject=of.to_reference(), **more)


def resources() -> None:
    made = patient("1")
    attempt("save, creates", made.save)
    made["birthDate"] = "1980-01-02"
    attempt("save, updates", made.save)
    attempt("save of fields", lambda: made.save(fields=["birthDate"]))
    attempt("resource.patch", lambda: made.patch(gender="female"))
    attempt("resource.refresh", made.refresh)
    attempt("resource.is_valid", lambda: require(made.is_valid(raise_exception=True)))
    attempt("client.get", lambda: require(client.get("Patient", made.id).id == made.id))
    attempt("client.patch", lambda: client.patch("Patient", made.id, active=True))
    attempt("reference.to_resource", lambda: require(made.to_reference().to_resource().id == made.id))
    attempt("reference.patch", lambda: made.to_reference().patch(active=False))
    attempt("execute of an operation", lambda: require(made.execute("$everything", method="get")["entry"]))
    attempt("execute by POST", lambda: require(made.execute("$everything", method="post")["entry"]))
    heart_rate = result(made, valueQuantity={"value": 70, "unit": "/min", "system": "http://unitsofmeasure.org", "code": "/min"})
    attempt("resource.create", heart_rate.create)
    heart_rate["status"] = "amended"
    attempt("resource.update", heart_rate.update)
    searches(made)
    attempt("resource.delete", heart_rate.delete)
    attempt("client.delete", lambda: client.delete("Patient", made.id))


def searches(made: Any) -> None:
    patients, results = client.resources("Patient"), client.resources("Observation")
    attempt("search.first", lambda: require(patients.search(identifier=f"{SYSTEM}|1").first().id == made.id))
    attempt("search.get", lambda: require(patients.search(identifier=f"{SYSTEM}|1").get().id == made.id))
    attempt("search.get by id", lambda: require(patients.search(_id=made.id).get().id == made.id))
    attempt("search.count", lambda: require(results.search(patient=made.id).count() == 1))
    attempt("search.fetch", lambda: require(len(results.search(subject=made.to_reference()).fetch()) == 1))
    attempt("search.fetch_all, pages", lambda: require(len(results.search(patient="teen").limit(5).fetch_all()) > 20))
    attempt("search.fetch_raw", lambda: require(results.search(patient="teen").fetch_raw()["type"] == "searchset"))
    attempt("iteration", lambda: require(sum(1 for _ in results.search(patient="teen").limit(10)) > 20))
    attempt("search.sort", lambda: require(results.search(patient="teen").sort("-date", "code").limit(3).fetch()))
    attempt("search.elements", lambda: require(results.search(patient="teen").elements("code").limit(1).fetch()))
    attempt("search.include", lambda: require(results.search(patient="teen").include("Observation", "subject").limit(2).fetch_raw()))
    attempt(
        "search.include iterate", lambda: require(results.search(patient="teen").include("Patient", "organization", iterate=True).fetch())
    )
    attempt("search.revinclude", lambda: require(patients.search(_id=made.id).revinclude("Observation", "subject").fetch_raw()))
    attempt("search.has", lambda: require(patients.has("Observation", "patient", code="8867-4").search(_id=made.id).fetch()))
    attempt("chained search", lambda: require(results.search(patient__Patient__family="Tour").count() == 1))
    attempt("search.ge", lambda: require(results.search(patient="teen", date__ge="2000").fetch()))
    attempt("search.missing", lambda: require(patients.search(_id=made.id, telecom__missing=True).fetch()))
    attempt("search.exact", lambda: require(patients.search(_id=made.id, family__exact="Tour").fetch()))
    attempt("search.Raw", lambda: require(patients.search(Raw(**{"_id": made.id})).fetch()))
    attempt("search.get_or_create", lambda: require(not patients.search(identifier=f"{SYSTEM}|1").get_or_create(patient("1"))[1]))
    attempt("search.update", lambda: require(patients.search(identifier=f"{SYSTEM}|1").update(patient("1", active=True))))
    attempt("search.patch", lambda: require(patients.search(identifier=f"{SYSTEM}|1").patch(gender="male")))
    attempt("search.update, creates", lambda: require(patients.search(identifier=f"{SYSTEM}|2").update(patient("2"))[1]))
    attempt("search.delete", lambda: patients.search(identifier=f"{SYSTEM}|2").delete())


def bundles() -> None:
    entry = {"resource": patient("3").serialize(), "request": {"method": "POST", "url": "Patient"}}
    for kind in ("batch", "transaction"):
        attempt(kind, lambda kind=kind: require(client.resource("Bundle", type=kind, entry=[entry]).save()))  # type: ignore[misc]
        attempt(
            f"{kind} by execute",
            lambda kind=kind: require(client.execute("", data={"resourceType": "Bundle", "type": kind, "entry": [entry]})),  # type: ignore[misc]
        )
    attempt("metadata", lambda: require(client.execute("metadata", method="get")["fhirVersion"] == "4.0.1"))


resources()
bundles()
