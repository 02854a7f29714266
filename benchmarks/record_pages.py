"""Measures the pages of a long record: ``python -m benchmarks.record_pages [--store URL] [--rows 10000]``.

One patient gets the rows; the program prints the milliseconds of CPU time that the server's process takes for each page, with all that
belongs to it: the session, the record's permissions, the searches, their audit lines and the page itself.  The searches run in this
process, so on MongoDB the work of the database is not in it.  A page of a record with 10,000 rows should take less than 50 ms.
"""

from __future__ import annotations

import argparse
import tempfile
from datetime import date, timedelta
from statistics import median
from time import process_time_ns
from typing import Any, Final

from tests.portal.record_environment import Reader, RecordPages
from tests.served import Served

PAGES: Final = ("", "/results", "/medicines", "/visits", "/documents", "/messages", "/vital-signs", "/bills", "/results/long-0")
# Of each ten rows, how many are of a kind
SHARES: Final = {"lab": 3, "vital": 1, "report": 1, "visit": 1, "appointment": 1, "document": 1, "message": 1, "medicine": 1}
_SAMPLES: Final = 15
_PORTION: Final = 500
_HOUR: Final = 3_600_000_000
_SUBJECT: Final = {"subject": {"reference": "Patient/adult"}}
_CATEGORIES: Final = "http://terminology.hl7.org/CodeSystem/observation-category"
_RXNORM: Final = "http://www.nlm.nih.gov/research/umls/rxnorm"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.record_pages", description=__doc__)
    parser.add_argument("--store", help="an empty store to fill; default: a new SQLite file")
    parser.add_argument("--rows", type=int, default=10_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        site = RecordPages(Served(options.store or f"sqlite:///{folder}/fhir.sqlite"))
        _fill(site.served, options.rows)
        reader = site.reader("adult")
        path = reader.address("Alex")
        for page in PAGES:
            reader.page(path + page)  # notes that the person opened it, as after a while all are
        print(f"{'page':24}{'ms of CPU':>12}")
        for page in PAGES:
            print(f"{page or 'overview':24}{_milliseconds(reader, path + page):12.1f}", flush=True)
        site.served.close()


def _fill(served: Served, rows: int) -> None:
    until = served.parts.clock()
    kinds = [kind for kind, share in SHARES.items() for _ in range(share)]
    for start in range(0, rows, _PORTION):
        numbers = range(start, min(rows, start + _PORTION))
        resources = [_row(kinds[number % len(kinds)], number) for number in numbers]
        served.at(until - (rows - start) * _HOUR)  # rows come one after the other, as from a feed
        token = served.token()
        entries = [{"request": {"method": "PUT", "url": f"{one['resourceType']}/{one['id']}"}, "resource": one} for one in resources]
        answer = served.request(token, "POST", "", body={"resourceType": "Bundle", "type": "transaction", "entry": entries})
        assert answer.status == 200, answer.body
    served.at(until)


def _row(kind: str, number: int) -> dict[str, Any]:
    day = str(date(2026, 11, 20) - timedelta(days=number % 7_000))
    row: dict[str, Any] = {"id": f"long-{number}", **_SUBJECT}
    code = {"coding": [{"system": "http://loinc.org", "code": ("718-7", "2339-0", "2345-7")[number % 3]}]}
    match kind:
        case "lab" | "vital":
            category = [{"coding": [{"system": _CATEGORIES, "code": "laboratory" if kind == "lab" else "vital-signs"}]}]
            value = {"value": number % 50, "unit": "mg/dL", "system": "http://unitsofmeasure.org", "code": "mg/dL"}
            row |= {"resourceType": "Observation", "status": "final", "category": category, "code": code, "valueQuantity": value}
            return row | {"effectiveDateTime": day}
        case "report":
            members = [{"reference": f"Observation/long-{number - back}"} for back in (2, 3, 4)]  # the values before it
            return row | {"resourceType": "DiagnosticReport", "status": "final", "code": code, "effectiveDateTime": day, "result": members}
        case "visit":
            seen = {"class": {"system": "http://terminology.hl7.org/CodeSystem/v3-ActCode", "code": "AMB"}}
            return row | {"resourceType": "Encounter", "status": "finished", "period": {"start": day, "end": day}, **seen}
        case "appointment":
            people = [{"actor": {"reference": "Patient/adult"}, "status": "accepted"}]
            times = {"start": f"{day}T10:00:00Z", "end": f"{day}T10:30:00Z"}
            return {"resourceType": "Appointment", "id": row["id"], "status": "fulfilled", "participant": people, **times}
        case "document":
            content = [{"attachment": {"contentType": "text/plain", "data": "bm90ZQ==", "title": "Note"}}]
            kind_of = {"type": {"coding": [{"system": "http://loinc.org", "code": "34133-9"}]}}
            row |= {"resourceType": "DocumentReference", "status": "current", "date": f"{day}T10:00:00Z", "content": content, **kind_of}
            return row
        case "message":
            people_of = {"recipient": [{"reference": "Patient/adult"}], "payload": [{"contentString": f"Message {number}"}]}
            return row | {"resourceType": "Communication", "status": "completed", "sent": f"{day}T10:00:00Z", **people_of}
        case _:
            drug = {"medicationCodeableConcept": {"coding": [{"system": _RXNORM, "code": ("83367", "29046", "435")[number % 3]}]}}
            ordered = {"status": "active" if number % 4 else "completed", "intent": "order", "authoredOn": day}
            return row | {"resourceType": "MedicationRequest", **ordered, **drug}


def _milliseconds(reader: Reader, path: str) -> float:
    samples = []
    for _ in range(_SAMPLES):
        began = process_time_ns()
        reader.page(path)
        samples.append((process_time_ns() - began) / 1e6)
    return median(samples)


if __name__ == "__main__":
    main()
