"""Each caller reads one time of a resource, and finds, sorts, lists, exports and validates it by that time and no other.

Random histories are compared request by request with what the caller reads: versions and parts that a caller does not see, moves
between patients, deletions, updates without a change, references to hidden resources, release dates.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import pytest

from fhir_server.access import versions
from fhir_server.access.permissions import INTERNAL
from fhir_server.clock import instant_text
from fhir_server.smart.clients import clients
from fhir_server.smart.clients.clients import Client
from fhir_server.writing import row_labeling
from tests.bulk_data.test_bulk_export import exported
from tests.seeded import seeded
from tests.served import Served, micros, store_url
from tests.time_limits.test_visible_versions import MINUTE

_OBSERVATION = {"resourceType": "Observation"}
_LOINC = "http://loinc.org"
_RELEASE = "https://fhir-server.example/ig/StructureDefinition/release-at"
_LABORATORY = {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/observation-category", "code": "laboratory"}]}
_ORDINARY, _SENSITIVE = "718-7", "56888-1"
_SETTLED, _UNSETTLED = ("seen", "hidden"), ("seen", "hidden", "later", "other")
"""Guards whose visibility a class can tell; and all guards, with one that is released later and one of another patient."""


def _result(**more: Any) -> dict[str, Any]:
    code = {"coding": [{"system": _LOINC, "code": more.pop("code", _ORDINARY)}]}
    subject = {"reference": f"Patient/{more.pop('patient', 'teen')}"}
    return {**_OBSERVATION, "status": "final", "code": code, "category": [_LABORATORY], "subject": subject, **more}


_GUARDS: dict[str, dict[str, Any]] = {
    "seen": _result(),
    "hidden": _result(code=_SENSITIVE),
    "later": _result(extension=[{"url": _RELEASE, "valueInstant": "2026-11-21T12:10:00-05:00"}]),
    "other": _result(patient="adult"),
}


@dataclass
class Drawn:
    """The content of one resource, which each step changes in one respect."""

    content: dict[str, Any] = field(default_factory=dict)

    def step(self, random: Random, *, settled: bool, now: int) -> dict[str, Any] | None:
        """The next version; None: a deletion."""
        kinds = ("status", "held", "code", "patient", "member", "member", "tag", "nothing", "delete", *(() if settled else ("release",)))
        match random.choice(kinds):
            case "status":
                self.content["status"] = random.choice(("final", "amended", "corrected"))
            case "held":
                self.content["status"] = "preliminary"
            case "code":
                self.content["code"] = random.choice((_ORDINARY, _SENSITIVE))
            case "patient":
                self.content["patient"] = random.choice(("teen", "teen", "adult"))
            case "member":
                chosen = random.sample(_SETTLED if settled else _UNSETTLED, random.randint(0, 2))
                self.content["hasMember"] = [{"reference": f"Observation/guard-{one}"} for one in sorted(chosen)]
                if not chosen:
                    self.content.pop("hasMember")
            case "tag":
                self.content["meta"] = {"tag": [{"system": "http://a.example", "code": random.choice("abc")}]}
            case "release":
                after = random.choice((-5, 2, 6, 60)) * MINUTE
                self.content["extension"] = [{"url": _RELEASE, "valueInstant": instant_text(now + after)}]
                if random.random() < 0.4:
                    self.content.pop("extension")
            case "delete":
                return None
        left_out = "hasMember" if settled and self.content.get("patient") == "adult" else ""  # the guards are a teenager's
        return _result(**{name: value for name, value in self.content.items() if name != left_out})


class Checked:
    """A server, its callers, and the times that each of them has read of each resource."""

    def __init__(self, served: Served) -> None:
        self.served = served
        self.feed = served.token()
        for id, clearance in (("limited", ()), ("cleared", ("*",))):
            backend = Client(id, id, "backend", "private_key_jwt", "system/*.cruds", jwks={"keys": []}, clearance=clearance)
            served.run(clients.save(served.parts.store, backend))
        self.callers = {
            "feed": self.feed,
            "cleared": served.token("cleared"),
            "limited": served.token("limited"),
            "clinician": served.token("demo-public", "user/*.cruds", "clinician"),
            "parent": served.app_token("parent-a", "teen"),
            "adult": served.app_token("adult", "adult"),
            "narrow": served.app_token("parent-a", "teen", "patient/Observation.rs?category=laboratory"),
        }
        self.read: dict[tuple[str, str], set[int]] = {}
        self.written: list[int] = []
        self.checks = self.hidden = 0
        for name, guard in _GUARDS.items():
            self.write(f"guard-{name}", guard)

    def write(self, id: str, body: Mapping[str, Any] | None) -> None:
        self.served.at(self.served.parts.clock() + MINUTE)
        self.written.append(self.served.parts.clock())
        if body is None:
            assert self.served.request(self.feed, "DELETE", f"Observation/{id}").status == 204
        else:
            answer = self.served.request(self.feed, "PUT", f"Observation/{id}", body={**body, "id": id})
            assert answer.status in (200, 201), answer.body

    def finds(self, token: str, id: str, condition: str) -> bool:
        return self.served.get(token, f"Observation?_id={id}&_lastUpdated={condition}").ids() == [id]

    def check(self, id: str, *, settled: bool) -> None:
        for caller, token in self.callers.items():
            answer = self.served.get(token, f"Observation/{id}")
            if answer.status != 200:
                assert not self.finds(token, id, "gt2020"), (caller, id)
                self.hidden += 1
                continue
            self.checks += 1
            meta = answer.json["meta"]
            time = micros(meta["lastUpdated"])
            known = self.read.setdefault((caller, id), set())
            past = self.served.get(token, f"Observation/{id}/_history").json["entry"]
            known |= {micros(entry["response"]["lastModified"]) for entry in past}  # also of versions released since
            assert time == max(known)
            # A scope with a condition may hide guards, so its times of references are those of changes before.
            exact = settled and caller != "narrow"
            assert not self.finds(token, id, f"gt{instant_text(time)}"), (caller, id, meta)
            found = [one for one in {*self.written[-6:], time} if self.finds(token, id, f"eq{instant_text(one)}")]
            assert found == [time] if exact else known.issuperset(found), (caller, id, meta, [*map(instant_text, found)])
            self._check_versions(token, id, answer.headers, meta, time)
            self._check_conditions(caller, token, id, answer.headers)

    def _check_versions(self, token: str, id: str, headers: Mapping[str, str], meta: Mapping[str, str], time: int) -> None:
        for path in (f"Observation/{id}/_history", "Observation/_history"):
            for since in (time, time + MINUTE):
                entries = self.served.get(token, f"{path}?_since={instant_text(since)}").json.get("entry", [])
                mine = [one for one in entries if one.get("fullUrl", "").endswith(f"/{id}") or one["request"]["url"].endswith(f"/{id}")]
                assert bool(mine) == (since == time), (id, path, meta)
                if mine:
                    assert mine[0]["resource"]["meta"] == meta
                    assert mine[0]["response"]["lastModified"] == meta["lastUpdated"]
        version = self.served.get(token, f"Observation/{id}/_history/{meta['versionId']}")
        assert version.json["meta"] == meta and version.headers["etag"] == headers["etag"]

    def _check_conditions(self, caller: str, token: str, id: str, headers: Mapping[str, str]) -> None:
        assert self.served.get(token, f"Observation/{id}", **{"if-none-match": headers["etag"]}).status == 304
        since = self.served.get(token, f"Observation/{id}", **{"if-modified-since": headers["last-modified"]})
        assert since.status == (304 if caller == "feed" else 200)

    def check_all(self, ids: list[str], *, settled: bool) -> None:
        """Check the order of all resources and what an export since an instant holds."""
        middle = sorted(self.written)[len(self.written) // 2]
        for caller, token in self.callers.items():
            if not settled or caller == "narrow":
                continue
            for sign in ("", "-"):
                found = self.served.get(token, f"Observation?_id={','.join(ids)}&_sort={sign}_lastUpdated&_count=100").json.get("entry", [])
                times = [entry["resource"]["meta"]["lastUpdated"] for entry in found]
                assert times == sorted(times, reverse=bool(sign)), caller
        for caller in ("feed", "cleared", "limited"):
            token = self.callers[caller]
            expected = {id for id in ids if any(time >= middle for time in self._times(token, id))}
            files = exported(self.served, token, f"$export?_type=Observation&_since={instant_text(middle)}")
            assert not settled or expected == set(files.get("Observation", ())) & set(ids), caller

    def _times(self, token: str, id: str) -> Iterator[int]:
        answer = self.served.get(token, f"Observation/{id}")
        if answer.status == 200:
            yield micros(answer.json["meta"]["lastUpdated"])


def _walk(store: str, seed: int, steps: int) -> Checked:
    """Write random versions of three resources, one in three runs with release dates, and check each caller after each of them."""
    random, settled = Random(seed), seed % 3 > 0
    checked = Checked(seeded(store))
    try:
        drawn = {f"drawn-{number}": Drawn() for number in range(3)}
        for _ in range(steps):
            id = random.choice(list(drawn))
            body = drawn[id].step(random, settled=settled, now=checked.served.parts.clock())
            if body is None and (checked.served.get(checked.feed, f"Observation/{id}").status != 200):
                body = _result(**drawn[id].content)
            checked.write(id, body)
            checked.check(id, settled=settled)
        checked.check_all([*drawn, *(f"guard-{name}" for name in _GUARDS)], settled=settled)
    finally:
        checked.served.close()
    return checked


def _require_varied(checked: Checked) -> None:
    """Where nothing is hidden, or nothing is seen, the callers would prove nothing."""
    assert checked.checks > 20 and checked.hidden > 5
    assert len({frozenset(times) for (_, id), times in checked.read.items() if id == "drawn-0"}) > 1


@pytest.mark.parametrize(("kind", "seed"), [("memory", 1), ("memory", 3), ("sqlite", 4), ("mongodb", 5)])
def test_a_resource_is_found_by_the_time_that_its_reader_reads(kind: str, seed: int, tmp_path: Path) -> None:
    _require_varied(_walk(store_url(kind, tmp_path), seed, 6 if kind == "mongodb" else 12))


def _time_of_storing(monkeypatch: pytest.MonkeyPatch) -> None:
    exact = versions.last_updated_entries
    found = lambda row: (*exact(row), versions.last_updated_entry(row.updated, row.class_id))  # noqa: E731
    monkeypatch.setattr(versions, "last_updated_entries", found)


def _changes_of_hidden_references(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_labeling, "guarded_class", lambda whole, parts, guards: whole[1])


def _no_changes_of_references(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_labeling, "guarded_class", lambda whole, parts, guards: None)


def _no_time_of_versions_without_a_change(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_labeling, "STORED", INTERNAL)


@pytest.mark.parametrize(
    "plant", [_time_of_storing, _changes_of_hidden_references, _no_changes_of_references, _no_time_of_versions_without_a_change]
)
def test_planted_fault_of_the_index_of_times_is_detected(
    plant: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch)
    with pytest.raises(AssertionError):
        for seed in (1, 2, 4, 5):
            _walk("memory:", seed, 12)


@pytest.mark.slow
@pytest.mark.parametrize("block", range(4))
@pytest.mark.parametrize("kind", ["memory", "sqlite", "mongodb"])
def test_a_resource_is_found_by_one_time_in_long_histories(kind: str, block: int, tmp_path: Path) -> None:
    for seed in range(100 + 5 * block, 105 + 5 * block):
        folder = tmp_path / str(seed)
        folder.mkdir()
        _require_varied(_walk(store_url(kind, folder), seed, 30))
