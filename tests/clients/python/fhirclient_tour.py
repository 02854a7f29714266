"""The calls of SMART's client for Python, as it is shipped.  ``fhirclient_tour.py BASE TOKEN``, with fhirclient on the path."""

from __future__ import annotations

import sys
from typing import Any

from calls import attempt, require
from fhirclient import client
from fhirclient.models import bundle, observation, patient

BASE, TOKEN = sys.argv[1:]
AUTH = {"access_token": TOKEN}
smart = client.FHIRClient(state={"app_id": "tour", "server": {"base_uri": f"{BASE}/", "auth_type": "oauth2", "auth": AUTH}})
server = smart.server


def new_patient() -> Any:
    return patient.Patient({"name": [{"family": "Tour", "given": ["Smart"]}], "birthDate": "1980-01-02"})


def new_result(id: str) -> Any:
    code = {"coding": [{"system": "http://loinc.org", "code": "8867-4"}]}
    return observation.Observation({"status": "final", "code": code, "subject": {"reference": f"Patient/{id}"}})


def before_sign_in() -> None:
    settings = {"app_id": "demo-public", "api_base": BASE, "redirect_uri": "http://127.0.0.1:8765/callback", "scope": "patient/*.rs"}
    app = client.FHIRClient(settings=settings)
    attempt("capability statement", lambda: require(app.server.capabilityStatement.fhirVersion == "4.0.1"))
    attempt("prepare", lambda: require(not app.prepare()))  # there is no token yet
    attempt("authorize_url", lambda: require("code_challenge=" in app.authorize_url))


def pages() -> int:
    search = observation.Observation.where(struct={"patient": "teen", "_count": "5"})
    return sum(1 for _ in search.perform_resources_iter(server))


def tour() -> None:
    before_sign_in()
    attempt("ready", lambda: require(smart.ready))
    made = new_patient()
    made.id = attempt("create", lambda: made.create(server)["id"])
    read = attempt("read", lambda: patient.Patient.read(made.id, server))
    attempt("human name", lambda: require(smart.human_name(read.name[0]) == "Smart Tour"))
    read.active = True
    attempt("update", lambda: require(read.update(server)["active"]))
    heart_rate = new_result(made.id)
    heart_rate.id = attempt("create of a result", lambda: heart_rate.create(server)["id"])
    found = {"patient": made.id}
    attempt("search", lambda: require(len(observation.Observation.where(struct=found).perform_resources(server)) == 1))
    attempt("search, bundle", lambda: require(observation.Observation.where(struct=found).perform(server).total == 1))
    attempt("search, pages", lambda: require(pages() > 20))
    attempt(
        "search, include",
        lambda: require(observation.Observation.where(struct=found).include("subject", observation.Observation).perform(server)),
    )
    attempt(
        "search by $or",
        lambda: observation.Observation.where(struct={"code": {"$or": ["8867-4", "8310-5"]}, "patient": "teen"}).perform(server),
    )
    attempt("search by :exact", lambda: patient.Patient.where(struct={"family": {"$exact": "Tour"}}).perform(server))
    attempt("resolved reference", lambda: require(heart_rate_of(heart_rate.id).id == made.id))
    attempt("transaction", lambda: require(transaction()))
    attempt("delete of a result", lambda: heart_rate.delete(server))
    attempt("delete", lambda: read.delete(server))


def heart_rate_of(id: str) -> Any:
    return observation.Observation.read(id, server).subject.resolved(patient.Patient)


def transaction() -> Any:
    entry = {"resource": new_patient().as_json(), "request": {"method": "POST", "url": "Patient"}}
    posted = bundle.Bundle({"type": "transaction", "entry": [entry]})
    return server.post_json("", posted.as_json()).json()["entry"][0]["response"]["status"].startswith("201")


tour()
