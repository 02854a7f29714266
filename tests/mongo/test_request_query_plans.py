"""No query of a request scans a whole collection, for reads, searches and writes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from pymongo import MongoClient

from fhir_server.store.mongodb import MongoStore
from tests.mongo.command_listener import Listener
from tests.mongo.shared_mongod import fresh_url
from tests.mongo.test_query_plans import examined, scans
from tests.seeded import seeded

LEFT_OUT = (
    *("lsid", "$db", "$clusterTime", "readConcern", "$readPreference", "maxTimeMS", "writeConcern"),
    *("txnNumber", "startTransaction", "autocommit"),
)
OWN = ("own", "staff", "feed")  # callers: a patient, a clinician, and the institution's feed, which is not limited to patients
ASKED = (
    "Patient/adult", "Observation/adult-hemoglobin", "Observation/adult-hemoglobin/_history", "Observation/never",
    "Patient/adult/$everything", "Patient/adult/$everything?_count=3", "Patient/adult/$everything?_type=Observation",
    "Encounter/adult-annual-visit/$everything", "Observation/$lastn?patient=adult&category=laboratory",
    "Patient/adult/$summary", "DocumentReference/$docref?patient=adult",
    "Patient/adult/$health-cards-issue?credentialType=Immunization",
    "Observation?patient=adult", "Observation?patient=adult&_sort=-date&_count=3", "Observation?code=718-7",
    "Observation?_id=adult-hemoglobin",
    "Observation?patient=adult&category=laboratory&date=ge2020", "Observation?patient=adult&_total=accurate&_count=1",
    "Observation?patient=adult&_include=Observation:subject&_include=Observation:encounter", "Observation?patient=adult&_summary=count",
    "DiagnosticReport?patient=adult&_include=DiagnosticReport:result", "Encounter?patient=adult&_revinclude=Observation:encounter",
    "Patient?_id=adult&_revinclude=Observation:subject&_revinclude=Encounter:subject", "Patient?family=x", "Patient?_id=adult",
    "Observation?subject:Patient.family=Ng", "Appointment?date=ge2026-01-01", "Encounter?_lastUpdated=ge2026",
)  # fmt: skip
WRITTEN: tuple[tuple[str, str, dict[str, str]], ...] = (
    ("POST", "Observation", {}),
    ("POST", "Observation", {"if-none-exist": "identifier=urn:x|1"}),
    ("POST", "Observation", {"if-none-exist": "identifier=urn:x|1"}),
    ("PUT", "Observation/mine", {}),
    ("PUT", "Observation/mine", {"if-match": 'W/"1"'}),
    ("DELETE", "Observation/mine", {}),
)
NEW = {
    "resourceType": "Observation", "status": "final", "code": {"text": "x"}, "subject": {"reference": "Patient/adult"},
    "encounter": {"reference": "Encounter/adult-annual-visit"}, "identifier": [{"system": "urn:x", "value": "1"}],
}  # fmt: skip


class Watched:
    """A server with the seeds.  The commands that it sends to its database are explained."""

    def __init__(self) -> None:
        self.listener, url = Listener(), fresh_url()
        self.client: MongoClient[dict[str, Any]] = MongoClient(url)
        right = MongoStore.__init__
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(
                MongoStore, "__init__", lambda store, url, **options: right(store, url, **options, event_listeners=[self.listener])
            )
            self.served = seeded(url)
        self.tokens = {
            "own": self.served.app_token("adult", "adult"),
            "staff": self.served.app_token("clinician", "adult", "user/*.rs"),
            "feed": self.served.token(),
        }
        self.record = self.client.get_default_database()["resources"].count_documents({"patients": "adult"})
        self.listener.commands.clear()

    def plans(self) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
        """Return each query since the last call with its executed plan."""
        database = self.client.get_default_database()
        commands, seen = self.listener.of("find", "aggregate", "distinct"), set()
        for command in commands:
            asked = {name: value for name, value in command.items() if name not in LEFT_OUT}
            if repr(asked) not in seen:
                seen.add(repr(asked))
                yield command, database.command("explain", asked, verbosity="executionStats")
        self.listener.commands.clear()

    def close(self) -> None:
        self.served.close()
        self.client.close()


@pytest.fixture(scope="module")
def watched() -> Iterator[Watched]:
    made = Watched()
    yield made
    made.close()


@pytest.mark.parametrize("path", ASKED)
@pytest.mark.parametrize("who", OWN)
def test_a_request_scans_no_collection(watched: Watched, who: str, path: str) -> None:
    answer = watched.served.get(watched.tokens[who], path)
    assert answer.status < 500
    plans = list(watched.plans())
    assert plans
    for command, plan in plans:
        assert not scans(plan), (command, plan)
        if who == "own":
            assert examined(plan) <= watched.record + 12, command


@pytest.mark.parametrize(("method", "path", "headers"), WRITTEN)
def test_a_write_scans_no_collection(watched: Watched, method: str, path: str, headers: dict[str, str]) -> None:
    body = None if method == "DELETE" else {**NEW, **({"id": path.partition("/")[2]} if method == "PUT" else {})}
    answer = watched.served.request(watched.tokens["feed"], method, path, body=body, headers=headers)
    assert answer.status < 300, answer.body
    plans = list(watched.plans())
    assert len(plans) >= 2
    for command, plan in plans:
        assert not scans(plan), (command, plan)
        assert examined(plan) <= watched.record + 12, command
