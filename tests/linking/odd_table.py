"""What odd partner systems do, and the exact words that a person then reads, by section; "" is what is said above the sections."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import httpx

from tests.linking.odd_partners import DISCOVERY, HONEST, ODD_BASE, ODD_ORIGIN, SUBJECT, bundle, failing, laboratory

UNKNOWN = "Whether there are any is not known."
ALLERGIES, RESULTS = "/fhir/AllergyIntolerance", "/fhir/Observation"
POTASSIUM = ["2 January 2026", "Potassium", "Final", "1"]
PEANUT = ["No date", "Peanut", "Active, confirmed"]
WHOSE = "Check whose record this is"


@dataclass(frozen=True)
class Odd:
    """A partner: what it does ``instead`` of the honest one, and what is ``said``: the lines of a section, or "" for above them."""

    name: str
    instead: dict[str, Any]
    said: dict[str, list[str]] = field(default_factory=dict)


def _refusing(status: int, reason: str, **headers: str) -> Odd:
    said = {"Allergies": [f"{reason} {UNKNOWN}"], "Test results": POTASSIUM}
    return Odd(f"{status} for allergies", {ALLERGIES: failing(status, **headers)}, said)


def _patient(**members: Any) -> dict[str, Any]:
    return HONEST["/fhir/Patient/p1"] | members


def row(type: str, /, **members: Any) -> dict[str, Any]:
    return {"resourceType": type, "subject": SUBJECT} | members


def _page(number: int, *, last: int = 3, self_link: str = "", **changes: Any) -> Any:
    """Page ``number`` of a list that begins with the oldest."""
    links = [{"relation": "self", "url": self_link}] if self_link else []
    if number < last:
        links.append({"relation": "next", "url": f"{ODD_BASE}/Observation?page={number + 1}"})
    return bundle(laboratory(f"Test {number}", f"{2000 + number}-01-02"), link=links, **changes)


def _oldest_first(request: httpx.Request) -> Any:
    return _page(int(request.url.params.get("page", "1")))


def _newest_first(request: httpx.Request) -> Any:
    assert request.url.params["_sort"] == "-date", "the first page is enough"
    rows = [laboratory("New", "2026-01-02"), laboratory("Old", "2025-01-02")]
    return bundle(
        *rows, link=[{"relation": "self", "url": str(request.url)}, {"relation": "next", "url": f"{ODD_BASE}/Observation?page=2"}]
    )


def _says_sorted(request: httpx.Request) -> Any:
    """Claims to have sorted, but did not."""
    number = int(request.url.params.get("page", "1"))
    rows = [laboratory(f"Early {number}", "2001-01-02"), laboratory(f"Late {number}", f"{2010 + number}-01-02")]
    links = [{"relation": "self", "url": f"{ODD_BASE}/Observation?_sort=-date"}]
    links += [{"relation": "next", "url": "Observation?page=2"}] if number == 1 else []
    return bundle(*rows, link=links)


def _refuses_sort(request: httpx.Request) -> Any:
    return failing(400) if "_sort" in request.url.params else bundle(laboratory("Potassium", "2026-01-02"))


def _with_next(url: str) -> dict[str, Any]:
    return bundle(laboratory("Potassium", "2026-01-02"), link=[{"relation": "next", "url": url}])


def _incomplete(reason: str, where: str = "the other health system's") -> str:
    return f"This list of test results is incomplete, and newer ones may be missing: {reason} See {where} website for all of them."


def _single_types(access: str) -> dict[str, Any]:
    """A system that knows no ``*``, and answers 403 to what it does not list."""
    listed = [f"patient/{type}.{access}" for type in ("Patient", "Observation")]
    document = {"capabilities": ["launch-standalone"], "scopes_supported": ["launch/patient", "openid", *listed]}
    known = {path: HONEST[path] for path in (RESULTS, "/fhir/Patient/p1")}
    return {"/fhir/.well-known/smart-configuration": DISCOVERY | document, "/fhir/*": failing(403)} | known


SOME = {
    "Allergies": [f"This link does not include allergies: no such access was given at the other health system. {UNKNOWN}"],
    "Vaccinations": [f"This link does not include vaccinations: no such access was given at the other health system. {UNKNOWN}"],
    "Test results": POTASSIUM,
}
RATE = {"/fhir/*": failing(429, **{"retry-after": "120"}), "/fhir/Patient/p1": HONEST["/fhir/Patient/p1"]}
ODD_PARTNERS = [
    Odd("honest", {}, {"Allergies": PEANUT, "Test results": POTASSIUM}),
    # what a system refused is never an empty list
    Odd(
        "empty list", {ALLERGIES: bundle()},
        {"Allergies": ["The other health system sent an empty list of allergies. There may be some that it does not share."]},
    ),
    _refusing(400, "The other health system could not answer our question about allergies (error 400)."),
    _refusing(422, "The other health system could not answer our question about allergies (error 422)."),
    _refusing(401, "The other health system did not accept our access to allergies (error 401)."),
    _refusing(403, "The other health system does not let us see allergies (error 403)."),
    _refusing(404, "The other health system does not offer allergies to other systems (error 404)."),
    _refusing(405, "The other health system does not offer allergies to other systems (error 405)."),
    _refusing(410, "The other health system does not offer allergies to other systems (error 410)."),
    _refusing(406, "The other health system cannot send allergies in a form that we can read (error 406)."),
    _refusing(418, "The other health system answered our question about allergies in a way that we do not understand (status 418)."),
    _refusing(
        302, "The other health system told us to ask for allergies at another address. We do not follow that.",
        location="http://127.0.0.1:6666/x",
    ),
    Odd("500 for allergies", {ALLERGIES: failing(500)}, {"Allergies": [
        "The other health system had a problem of its own when we asked for allergies (error 500). Try again later. " + UNKNOWN,
    ]}),
    Odd("XML first", {ALLERGIES: httpx.Response(200, content=b"<Bundle/>")}, {"Allergies": [
        f"The other health system sent allergies in a form that we cannot read. {UNKNOWN}",
    ]}),
    Odd("outcome instead of a list", {ALLERGIES: {"resourceType": "OperationOutcome"}}, {"Allergies": [
        f"The other health system answered our question about allergies, but did not send a list. {UNKNOWN}",
    ]}),
    Odd("slow for one type", {ALLERGIES: httpx.ReadTimeout("slow")}, {"Allergies": [
        f"The other health system did not answer our question about allergies in time. Try again later. {UNKNOWN}",
    ], "Test results": POTASSIUM}),
    Odd("connection that breaks off", {ALLERGIES: httpx.ReadError("cut")}, {"Allergies": [
        f"The other health system could not be reached when we asked for allergies. Try again later. {UNKNOWN}",
    ]}),
    Odd("oversized", {ALLERGIES: lambda _: httpx.Response(200, content=b" " * (5 * 1024 * 1024))}, {"Allergies": [
        "The other health system sent allergies in a form that we do not accept: too much at once, or compressed. " + UNKNOWN,
    ]}),
    Odd("compressed", {ALLERGIES: httpx.Response(200, headers={"content-encoding": "br"}, stream=httpx.ByteStream(b"x"))}, {"Allergies": [
        "The other health system sent allergies in a form that we do not accept: too much at once, or compressed. " + UNKNOWN,
    ]}),
    # said once if it concerns everything
    Odd("403 for everything", {"/fhir/*": failing(403)}, {"": [
        "There is a problem", "The other health system does not let us see the information in this record (error 403).",
    ]}),
    Odd("error for everything", {"/fhir/*": failing(500)}, {"": [
        "There is a problem",
        "The other health system had a problem of its own when we asked for the information in this record (error 500). Try again later.",
    ]}),
    Odd("429 with Retry-After", RATE, {"": [
        "There is a problem",
        "The other health system asked us to wait before we ask for the information in this record. Try again in about 2 minutes.",
    ]}),
    Odd("429 at once", {"/fhir/Patient/p1": failing(429)}, {"": [
        "There is a problem", "The other health system asked us to wait. Try again in about a minute.",
    ]}),
    Odd("401 for everything", {"/fhir/*": failing(401), "/fhir/Patient/p1": failing(401)}, {"": [
        "There is a problem", "The other health system no longer accepts this link. Link the account again.",
    ]}),
    Odd("down", {"/fhir/Patient/p1": httpx.ConnectError("down")}, {"": [
        "There is a problem", "The other health system cannot be reached at the moment. Try again later.",
    ]}),
    # newest first, to a stated end
    Odd("oldest first", {RESULTS: _oldest_first}, {"Test results": [
        "2 January 2003", "Test 3", "Final", "1", "2 January 2002", "Test 2", "Final", "1", "2 January 2001", "Test 1", "Final", "1",
    ]}),
    Odd("newest first", {RESULTS: _newest_first}, {"Test results": [
        "These are the newest test results. Older ones are on the other health system's website.",
        "2 January 2026", "New", "Final", "1", "2 January 2025", "Old", "Final", "1",
    ]}),
    Odd("says that it sorted", {RESULTS: _says_sorted}, {"Test results": [
        "2 January 2012", "Late 2", "Final", "1", "2 January 2011", "Late 1", "Final", "1",
        "2 January 2001", "Early 1", "Final", "1", "2 January 2001", "Early 2", "Final", "1",
    ]}),
    Odd("refuses to sort", {RESULTS: _refuses_sort}, {"Test results": POTASSIUM}),
    Odd("list that goes on elsewhere", {RESULTS: _with_next("http://127.0.0.1:6666/next")}, {"Test results": [
        _incomplete("it continues at another address, which we do not follow."), *POTASSIUM,
    ]}),
    Odd("list without an end", {RESULTS: lambda request: _with_next(f"{ODD_BASE}/Observation?at={request.url.params.get('at', '')}x")}, {
        "Test results": [_incomplete("we stopped before its end."), *POTASSIUM * 10],
    }),
    Odd("list in a circle", {RESULTS: _with_next(f"{ODD_BASE}/Observation?at=1")}, {"Test results": [
        _incomplete("we stopped before its end."), *POTASSIUM * 2,
    ]}),
    Odd("list that breaks off", {RESULTS: _with_next(f"{ODD_ORIGIN}/gone")}, {"Test results": [
        _incomplete("the other health system did not send the rest.", "its"), *POTASSIUM,
    ]}),
    Odd("counts more than it sends", {RESULTS: bundle(laboratory("Potassium", "2026-01-02"), total=7)}, {"Test results": [
        "The other health system counts more test results than it sent. See its website for all of them.", *POTASSIUM,
    ]}),
    Odd(
        "warns that something is missing",
        {RESULTS: bundle(laboratory("Potassium", "2026-01-02"), {"resourceType": "OperationOutcome", "issue": [{"severity": "warning"}]})},
        {"Test results": ["The other health system says that something may be missing from this list.", *POTASSIUM]},
    ),
    # whose it is
    Odd("rows about another patient", {
        RESULTS: bundle(laboratory("Theirs", "2026-01-02", subject={"reference": "Patient/p2"}), laboratory("Potassium", "2026-01-02")),
    }, {"Test results": ["The other health system also sent entries about another patient. They are not shown.", *POTASSIUM]}),
    Odd("rows about nobody", {RESULTS: bundle(laboratory("Whose", "2026-01-02", subject={"display": "Alex Adult"}))}, {"Test results": [
        "The other health system sent an empty list of test results. There may be some that it does not share.",
        "The other health system also sent entries that do not say whose they are. They are not shown.",
    ]}),
    Odd("record of someone else", {"/fhir/Patient/p1": {"resourceType": "Patient", "id": "p2", "name": [{"text": "Mallory"}]}}, {"": [
        "There is a problem", "The other health system answered with the record of someone else. It is not shown.",
    ]}),
    Odd("silent about whose it is", {"/fhir/Patient/p1": failing(403)}, {"": [
        WHOSE, "The other health system did not tell us whose record this is.",
    ], "Test results": POTASSIUM}),
    Odd("record of a child", {"/fhir/Patient/p1": _patient(name=[{"text": "Charlie James Child"}], birthDate="2018-05-03")}, {"": [
        "Charlie James Child, born 3 May 2018", WHOSE,
        "This is not your own record. The name and birth date are those of Charlie Child, whose record you can open here.",
    ]}),
    Odd("other name", {"/fhir/Patient/p1": _patient(name=[{"text": "Mallory Miller"}])}, {"": [
        WHOSE,
        "The name differs from your own record here (Alex Adult, born 3 February 1980). Check that this is the record you meant.",
    ]}),
    Odd("other birth date", {"/fhir/Patient/p1": _patient(birthDate="1980-03-02")}, {"": [
        WHOSE,
        "The birth date differs from your own record here (Alex Adult, born 3 February 1980). Check that this is the record you meant.",
    ]}),
    Odd("other person", {"/fhir/Patient/p1": _patient(name=[{"text": "Mallory Miller"}], birthDate="1990")}, {"": [
        "Mallory Miller, born 1990", WHOSE,
        "The name and the birth date differ from your own record here (Alex Adult, born 3 February 1980). "
        "Check that this is the record you meant.",
    ]}),
    Odd("no birth date", {"/fhir/Patient/p1": _patient(birthDate=None)}, {"": [
        "Alex Adult, birth date not stated", WHOSE,
        "The name is that of your own record here. The birth date could not be compared. Check that this is the record you meant.",
    ]}),
    # what is said is what was sent
    Odd("opposites", {
        ALLERGIES: bundle({"resourceType": "AllergyIntolerance", "patient": SUBJECT, "code": {"text": "Peanut"},
                           "clinicalStatus": {"coding": [{"code": "resolved"}]}, "verificationStatus": {"coding": [{"code": "refuted"}]}}),
        "/fhir/MedicationRequest": bundle(
            row("MedicationRequest", status="active", doNotPerform=True, medicationCodeableConcept={"text": "Aspirin"}, authoredOn="2026"),
            row("MedicationRequest", status="stopped", medicationCodeableConcept={"text": "Warfarin"}, authoredOn="2025"),
        ),
        RESULTS: bundle(
            laboratory("LDL", "2026", valueInteger=None, valueQuantity={"value": 4, "unit": "mg/dL", "comparator": "<"}),
            laboratory("CRP", "2025", status="cancelled"),
            laboratory("Troponin", "2024", status="preliminary", interpretation=[{"text": "Critical high"}]),
        ),
    }, {
        "Allergies": ["No date", "Ruled out: Peanut", "Resolved, refuted: this was found not to be so"],
        "Medicines": ["2026", "Do not take: Aspirin", "Active", "2025", "Warfarin", "Stopped"],
        "Test results": [
            "2026", "LDL", "Final", "< 4 mg/dL", "2025", "CRP", "Canceled: not a valid result", "1",
            "2024", "Troponin", "Preliminary: may still change", "1 (Critical high)",
        ],
    }),
    Odd("entered in error", {"/fhir/Condition": bundle(row("Condition", code={"text": "Never"}, verificationStatus="entered-in-error"))}, {
        "Health issues": [
            "The other health system sent an empty list of health issues. There may be some that it does not share.",
            "Entries that the other health system has withdrawn as entered in error are not shown.",
        ],
    }),
    Odd("DSTU2", {
        ALLERGIES: bundle({"resourceType": "AllergyIntolerance", "patient": SUBJECT, "substance": {"text": "Peanut"}, "status": "active",
                           "reaction": [{"manifestation": [{"text": "Hives"}]}]}),
        "/fhir/MedicationRequest": failing(404),
        "/fhir/MedicationOrder": bundle({"resourceType": "MedicationOrder", "patient": SUBJECT, "status": "active",
                                         "medicationCodeableConcept": {"text": "Metformin"}, "dateWritten": "2016-05-03"}),
        "/fhir/MedicationStatement": bundle({"resourceType": "MedicationStatement", "patient": SUBJECT, "status": "active",
                                             "wasNotTaken": True, "medicationCodeableConcept": {"text": "Aspirin"}}),
    }, {
        "Allergies": ["No date", "Peanut", "Active", "Reaction: Hives"],
        "Medicines": ["3 May 2016", "Metformin", "Active", "No date", "Not taken: Aspirin", "Active"],
    }),
    Odd("medicine in the same answer", {"/fhir/MedicationRequest": bundle(
        row("MedicationRequest", status="active", medicationReference={"reference": f"{ODD_BASE}/Medication/m1"}),
        {"resourceType": "Medication", "id": "m1", "code": {"text": "Warfarin"}},
    )}, {"Medicines": ["No date", "Warfarin", "Active"]}),
    Odd("text that turns round", {
        RESULTS: bundle(laboratory("\u202eK\u2066+\x00", "2026-01-02", valueInteger=None, valueString="\u202e4.1")),
    }, {
        "Test results": ["2 January 2026", "K+", "Final", "4.1"],
    }),
    Odd("arrays in arrays", {RESULTS: httpx.Response(200, content=(
        b'{"resourceType":"Bundle","entry":[{"resource":{"resourceType":"Observation","subject":{"reference":"Patient/p1"},"code":'
        + b"[" * 900 + b"]" * 900 + b"}}]}"
    ))}, {"Test results": ["No date", "No description", "Status not stated", "No value was sent"]}),
    Odd("entries of wrong shapes", {RESULTS: bundle(laboratory("Potassium", "2026-01-02")) | {"entry": [
        7, {"resource": "x"}, {"resource": laboratory("Potassium", "2026-01-02")},
    ]}}, {"Test results": ["The other health system also sent entries that we cannot read. They are not shown.", *POTASSIUM]}),
    # what a person expects beside allergies, medicines and results
    Odd("the other lists", {
        "/fhir/Immunization": bundle({"resourceType": "Immunization", "patient": SUBJECT, "status": "not-done",
                                      "vaccineCode": {"text": "Measles"}, "occurrenceDateTime": "2019-05"}),
        "/fhir/MedicationAdministration": bundle(
            row("MedicationAdministration", status="not-done", medicationCodeableConcept={"text": "Heparin"}, effectiveDateTime="2020"),
        ),
        "/fhir/MedicationDispense": bundle(
            row("MedicationDispense", status="declined", medicationCodeableConcept={"text": "Aspirin"}, whenHandedOver="2021"),
        ),
        "/fhir/Procedure": bundle(row("Procedure", status="not-done", code={"text": "Appendectomy"}, performedDateTime="2018")),
        "/fhir/DiagnosticReport": bundle(row("DiagnosticReport", status="preliminary", code={"text": "X-ray"}, effectiveDateTime="2017")),
        "/fhir/DocumentReference": bundle(
            row("DocumentReference", status="superseded", docStatus="amended", type={"text": "Letter"}, date="2016"),
            row("DocumentReference", status="current", docStatus="entered-in-error", type={"text": "Never"}, date="2015"),
        ),
    }, {
        "Vaccinations": ["May 2019", "Not given: Measles", "Not given"],
        "Medicines": ["2021", "Aspirin", "Declined: not handed out", "2020", "Not given: Heparin", "Not given"],
        "Procedures": ["2018", "Not done: Appendectomy", "Not done"],
        "Reports": ["2017", "X-ray", "Preliminary: may still change"],
        "Documents": [
            "Entries that the other health system has withdrawn as entered in error are not shown.",
            "2016", "Letter", "Replaced by a newer document, amended after it was final",
        ],
    }),
    Odd("vital signs beside results", {RESULTS: lambda request: bundle(
        laboratory({"laboratory": "Potassium", "vital-signs": "Pulse"}[request.url.params["category"]], "2026-01-02"),
    )}, {"Test results": POTASSIUM, "Vital signs": ["2 January 2026", "Pulse", "Final", "1"]}),
    # what was granted is shown, and what was not is said
    Odd("SMART 1 with single types", _single_types("read"), SOME),
    Odd("SMART 2 with single types", _single_types("rs"), SOME),
    Odd("some types granted of all", {
        "/token": HONEST["/token"] | {"scope": "launch/patient patient/Patient.read patient/Observation.read patient/Condition.write"},
    }, {**SOME, "Health issues": [
        f"This link does not include health issues: no such access was given at the other health system. {UNKNOWN}",
    ]}),
    Odd("a part of a type granted", {
        "/token": HONEST["/token"] | {"scope": "patient/AllergyIntolerance.rs?clinical-status=active " + " ".join(
            f"patient/Observation.rs?category=http://terminology.hl7.org/CodeSystem/observation-category|{each}"
            for each in ("laboratory", "social-history")
        )},
    }, {
        "Allergies": ["At the other health system, access was given to only some of the allergies. There may be more.", *PEANUT],
        "Test results": POTASSIUM,
        "Vital signs": [
            "At the other health system, access was given to only some of the vital signs. There may be more.", *POTASSIUM,
        ],
    }),
    Odd("nothing granted", {"/token": HONEST["/token"] | {"scope": "launch/patient patient/Patient.rs"}}, {"": [
        "There is a problem",
        "This link does not include the information in this record: no such access was given at the other health system.",
    ]}),
    Odd("grant without scopes of types", {"/token": HONEST["/token"] | {"scope": "openid offline_access"}}, {"Test results": POTASSIUM}),
    # tokens
    Odd("no expires_in and no refresh token", {"/token": {"access_token": "a1", "token_type": "Bearer", "patient": "p1"}}, {
        "Test results": POTASSIUM,
    }),
    Odd("expires_in as text", {"/token": HONEST["/token"] | {"expires_in": "3600"}}, {"Test results": POTASSIUM}),
]  # fmt: skip
