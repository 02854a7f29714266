"""Scope conditions that an app uses to detect hidden data or to write without permission."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from fhir_server.smart.core.scopes import parse
from tests.seeded import seeded
from tests.served import Served

_RELEASE = "https://fhir-server.example/ig/StructureDefinition/release-at"
_CATEGORY = "http://terminology.hl7.org/CodeSystem/observation-category"


def _observation(category: str, patient: str = "adult", **more: Any) -> dict[str, Any]:
    coded = [{"coding": [{"system": _CATEGORY, "code": category}]}]
    about = {"subject": {"reference": f"Patient/{patient}"}, "category": coded}
    return {"resourceType": "Observation", "status": "final", "code": {"text": "a test"}, **about, **more}


def _report(id: str, results: tuple[str, ...]) -> dict[str, Any]:
    given: dict[str, Any] = {"resourceType": "DiagnosticReport", "id": id, "status": "final", "code": {"text": "a report"}}
    named = {"result": [{"reference": f"Observation/{one}"} for one in results]} if results else {}
    return given | {"subject": {"reference": "Patient/adult"}} | named


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    """Three reports that look alike to the patient except for their names; one depends on an unreleased result."""
    made = seeded()
    held = _observation("laboratory", id="held", extension=[{"url": _RELEASE, "valueInstant": "2030-01-01T00:00:00Z"}])
    rows = (
        held,
        _observation("laboratory", id="open"),
        _report("of-held", ("held",)),
        _report("of-none", ()),
        _report("of-open", ("open",)),
    )
    feed = made.token()
    for row in rows:
        assert made.request(feed, "PUT", f"{row['resourceType']}/{row['id']}", body=row).status == 201
    yield made
    made.close()


def _app(served: Served, scope: str) -> str:
    return served.app_token("adult", "adult", scope)


def test_scope_conditions_do_not_match_hidden_references(served: Served) -> None:
    rest = "patient/Observation.rs"
    for condition in ("result=Observation/held", "result=held", "result:Observation=held", "result=Observation/never-was"):
        token = _app(served, f"{rest} patient/DiagnosticReport.rs?{condition}")
        assert served.get(token, "DiagnosticReport").ids() == [], condition
        assert served.get(token, "DiagnosticReport/of-held").status == 404
        assert served.get(token, "Observation?_revinclude=DiagnosticReport:subject").ids("DiagnosticReport") == []
    # the controls: a visible reference matches, also together with others
    for condition in ("result=Observation/open", "result=Observation/held,Observation/open"):
        token = _app(served, f"{rest} patient/DiagnosticReport.rs?{condition}")
        assert served.get(token, "DiagnosticReport").ids() == ["of-open"], condition
        assert served.get(token, "DiagnosticReport/of-open").status == 200


def test_scope_conditions_match_reference_once_target_is_visible() -> None:
    served = seeded()
    held = _observation("laboratory", id="held", extension=[{"url": _RELEASE, "valueInstant": "2026-11-22T00:00:00Z"}])
    for row in (held, _report("of-held", ("held",))):
        served.request(served.token(), "PUT", f"{row['resourceType']}/{row['id']}", body=row)
    token = _app(served, "patient/Observation.rs patient/DiagnosticReport.rs?result=Observation/held")
    found = []
    for instant in ("2026-11-21T12:30:00-05:00", "2026-11-21T12:31:00-05:00"):
        served.at(instant)
        found.append(served.get(token, "DiagnosticReport").ids())
        row = served.get(served.token(), "Observation/held").json
        served.request(served.token(), "PUT", "Observation/held", body={name: row[name] for name in row if name != "extension"})
    served.close()
    assert found == [[], ["of-held"]]


def test_scope_conditions_with_missing_on_references_grant_nothing(served: Served) -> None:
    never = _app(served, "patient/Observation.rs")
    for condition in ("result:missing=false", "result:missing=true", "encounter:missing=true"):
        token = _app(served, f"patient/Observation.rs patient/DiagnosticReport.rs?{condition}")
        for path in ("DiagnosticReport", "DiagnosticReport/of-held", "DiagnosticReport/of-none"):
            answer, unasked = served.get(token, path), served.get(never, path)
            assert (answer.status, answer.body) == (unasked.status, unasked.body) and answer.status == 403, (condition, path)
        assert served.get(token, "Observation/open").status == 200  # the control
    assert served.get(_app(served, "patient/DiagnosticReport.rs?status:missing=false"), "DiagnosticReport/of-held").status == 200


def test_scope_conditions_that_are_invalid_reveal_no_references(served: Served) -> None:
    """The effect of such a scope must not depend on whether a resource has the reference."""
    for condition in ("foo=bar", "result.code=x", "_has:DiagnosticReport:result:code=x", "date=soon", "code:below=x"):
        token = _app(served, f"patient/DiagnosticReport.rs patient/Observation.rs?{condition}")
        answers = [served.get(token, f"DiagnosticReport/{id}") for id in ("of-held", "of-none", "of-open")]
        assert [answer.status for answer in answers] == [200] * 3, condition
        assert all("result" not in answer.json for answer in answers)
        assert len(served.get(token, "DiagnosticReport").ids()) >= 3
        assert served.get(token, "Observation/open").status == served.get(token, "Observation").status == 403


def test_scope_conditions_apply_to_create_and_update(served: Served) -> None:
    """An app that may write vital signs cannot write lab results, and cannot change a resource from one to the other."""
    feed = served.token()
    for id, category in (("a-lab", "laboratory"), ("a-vital", "vital-signs")):
        served.request(feed, "PUT", f"Observation/{id}", body=_observation(category, id=id))
    token = served.token("demo-public", "user/Observation.rs user/Observation.cu?category=vital-signs", "clinician")
    assert served.get(token, "Observation/a-lab").status == 200

    def sent(method: str, category: str, id: str = "") -> int:
        body = _observation(category) | ({"id": id} if id else {})
        path = f"Observation/{id}" if id else "Observation"
        alone = served.request(token, method, path, body=body).status
        entry = {"resource": body, "request": {"method": method, "url": path}}
        for kind in ("batch", "transaction"):
            bundle = {"resourceType": "Bundle", "type": kind, "entry": [entry]}
            answer = served.request(token, "POST", "", body=bundle)
            status = int(answer.json["entry"][0]["response"]["status"][:3]) if answer.status == 200 else answer.status
            assert status == alone, (kind, method, category, id)
        return alone

    assert sent("POST", "laboratory") == 403
    assert sent("PUT", "laboratory", "a-vital") == 403
    assert sent("PUT", "vital-signs", "a-lab") == 404
    assert sent("PUT", "vital-signs", "never-was") == 404
    assert sent("POST", "vital-signs") == 201  # the controls
    assert sent("PUT", "vital-signs", "a-vital") == 200


def test_scope_conditions_apply_to_deletion_of_app_state(served: Served) -> None:
    def state(code: str) -> dict[str, Any]:
        coded = {"code": {"coding": [{"system": "https://app.example", "code": code}]}}
        return {"resourceType": "Basic", "subject": {"reference": "Patient/adult"}, **coded}

    whole, part = _app(served, "patient/Basic.cruds"), _app(served, "patient/Basic.rs patient/Basic.d?code=draft")
    ids = {code: served.request(whole, "POST", "Basic", body=state(code)).json["id"] for code in ("draft", "kept")}
    match = {"if-match": 'W/"1"'}
    assert served.request(part, "DELETE", f"Basic/{ids['kept']}", headers=match).status == 404
    assert served.get(whole, f"Basic/{ids['kept']}").status == 200
    assert served.request(part, "DELETE", f"Basic/{ids['draft']}", headers=match).status == 204
    assert served.get(whole, f"Basic/{ids['draft']}").status == 410


@pytest.mark.parametrize("text", ["%E2%80%AE", "%00", "%0A", "%ED%A0%80", "%FF", "%C2%A0x", "", "%E2%80%8B", "%E2%81%A6x"])
def test_scope_conditions_with_unprintable_text_are_dropped(text: str) -> None:
    assert parse(f"patient/Observation.rs?category={text}") is None
    assert parse(f"patient/Observation.rs?{text}=x") is None
    assert parse(f"patient/Observation.rs?category=x&code=a{text}b" if text else "patient/Observation.rs?category=x&") is None
    sound = parse("patient/Observation.rs?category=caf%C3%A9&code=a%26b%20c")  # the control
    assert sound is not None and sound.query == (("category", "café"), ("code", "a&b c"))


def test_scope_levels_in_one_token_do_not_extend_each_other(served: Served) -> None:
    """``patient/`` scopes write only to the record in context, even if a ``user/`` scope reads others."""
    served.request(served.token(), "PUT", "Observation/of-child", body=_observation("vital-signs", "child", id="of-child"))
    token = served.token("demo-public", "user/Observation.rs patient/Observation.cu", "clinician", "adult")
    assert served.get(token, "Observation/of-child").status == 200
    assert served.request(token, "POST", "Observation", body=_observation("vital-signs", "child")).status == 403
    changed = _observation("vital-signs", "child", id="of-child")
    assert served.request(token, "PUT", "Observation/of-child", body=changed).status == 403
    moved = _observation("vital-signs", "adult", id="of-child")
    assert served.request(token, "PUT", "Observation/of-child", body=moved).status == 404
    assert served.request(token, "POST", "Observation", body=_observation("vital-signs")).status == 201  # the control
    wider = served.token("demo-public", "user/Observation.rs user/Observation.cu", "clinician", "adult")
    assert served.request(wider, "PUT", "Observation/of-child", body=changed).status == 200
