"""Generates the writes among the requests: creates, updates, patches and deletes of hidden and visible rows, alone and in Bundles."""

from __future__ import annotations

import json
from base64 import b64encode
from random import Random
from typing import Any
from urllib.parse import quote

from tests.noninterference.case_generator import Case
from tests.noninterference.paired_server import Ask
from tests.noninterference.probes import Probes
from tests.noninterference.resource_factory import ref

UNKNOWN = "zz-never-existed"
JSON_TYPE = ("content-type", "application/fhir+json")
GUIDE = "https://fhir-server.example/ig/StructureDefinition"
XML_PATCH_TYPE = ("content-type", "application/xml-patch+xml")


class Writes:
    """The write requests of :class:`~tests.noninterference.request_generator.Asker`."""

    _case: Case
    _random: Random
    _probes: Probes
    _patient: str
    _types: tuple[str, ...]
    _all_types: tuple[str, ...]

    def _pick(self, *values: Any) -> Any:
        return self._random.choice(values)

    def _type(self) -> str:
        return self._pick(*self._types) if self._random.random() < 0.9 else self._pick(*self._all_types)

    def _name(self) -> str:
        fate = self._random.random()
        if fate < 0.5 and self._probes.hidden_ids:
            return self._pick(*self._probes.hidden_ids)
        if fate < 0.9:
            return self._pick(*self._probes.shown_ids)
        return f"{self._type()}/{UNKNOWN}"

    def _subject(self) -> dict[str, Any]:
        return ref("Patient", self._patient)

    def _draft(self) -> dict[str, Any]:
        """Return a resource that this caller may be allowed to create."""
        if self._case.caller.kind == "BO" and self._random.random() < 0.8:
            about = {"identifier": [{"system": "https://ids.example/accession", "value": self._pick("A-100", "A-101")}]}
            partly = {"partOf": {"reference": self._account()}} if self._random.random() < 0.5 else {}
            return {"resourceType": "Account", "status": "active", "subject": [self._subject()], **about, **partly}
        if self._case.caller.kind in ("AS", "PC", "BE") and self._random.random() < 0.6:
            row: dict[str, Any] = {
                "resourceType": "Observation", "status": "final", "code": {"coding": [{"system": "http://loinc.org", "code": "29463-7"}]},
                "category": [{"coding": [{"code": "vital-signs"}]}], "subject": self._subject(), "effectiveDateTime": "2026-11-21",
            }  # fmt: skip
        else:
            row = {
                "resourceType": "Communication", "status": "completed", "subject": self._subject(), "payload": [{"contentString": "hello"}],
                "sender": {"reference": self._case.caller.me or "Practitioner/dr-one"},
            }  # fmt: skip
        fate = self._random.random()
        if fate < 0.6:
            target = self._name() if fate < 0.45 else f"Observation/{UNKNOWN}"
            name = "about" if row["resourceType"] == "Communication" else self._pick("derivedFrom", "hasMember", "focus")
            allowed = name in ("about", "focus") or target.startswith("Observation/")
            row |= {name: [{"reference": target if allowed else f"Observation/{target.partition('/')[2]}"}]}
        return row

    def _account(self) -> str:
        accounts = [name for name in (*self._probes.hidden_ids, *self._probes.shown_ids) if name.startswith("Account/")]
        return self._pick(*accounts, f"Account/{UNKNOWN}")

    def create(self) -> Ask:
        row = self._draft()
        prefer = (("prefer", f"return={self._pick('representation', 'minimal', 'OperationOutcome')}"),)
        return Ask("create", "POST", row["resourceType"], "", (JSON_TYPE, *prefer), text_of(row))

    def create_with_provenance(self) -> Ask:
        """Create a resource with a Provenance that may name a hidden row."""
        row = self._draft()
        said: dict[str, Any] = {
            "resourceType": "Provenance",
            "recorded": "2026-11-21T12:00:00Z",
            "agent": [{"who": {"reference": self._case.caller.me or "Practitioner/dr-one"}}],
            "entity": [{"role": "source", "what": {"reference": self._pick(*self._probes.hidden_ids, self._name())}}],
        }
        for name in ("about", "derivedFrom", "hasMember", "focus"):
            row.pop(name, None)
        return Ask("create", "POST", row["resourceType"], "", (JSON_TYPE, ("x-provenance", json.dumps(said))), text_of(row))

    def conditional_create(self) -> Ask:
        row = self._draft()
        type = row["resourceType"]
        known = self._probes.hidden.get((type, "identifier"), ()) or self._probes.shown.get((type, "identifier"), ("x|y",))
        found = self._pick(*known)
        system, _, value = found.partition("|")
        if value:
            row["identifier"] = [{"system": system, "value": value}]
        condition = self._pick(
            f"identifier={quote(found)}", f"identifier={quote(found)}", f"_id={self._name().partition('/')[2]}", "status=completed"
        )
        return Ask("conditional-create", "POST", type, "", (JSON_TYPE, ("if-none-exist", condition)), text_of(row))

    def transaction(self) -> Ask:
        """Create a resource conditionally, possibly by the identifier of a hidden row, and a second one that refers to it."""
        once, address = self.conditional_create(), "urn:uuid:6f1c2a3e-0000-4000-8000-000000000001"
        about = self._draft() | {"basedOn": [{"reference": address}]}
        condition = dict(once.headers)["if-none-exist"]
        entries = [
            {
                "fullUrl": address,
                "resource": json.loads(once.body),
                "request": {"method": "POST", "url": once.path, "ifNoneExist": condition},
            },
            {"resource": about, "request": {"method": "POST", "url": about["resourceType"]}},
        ]
        return Ask(
            "transaction", "POST", "", "", (JSON_TYPE,), text_of({"resourceType": "Bundle", "type": "transaction", "entry": entries})
        )

    def update(self) -> Ask:
        name = self._name()
        if self._case.caller.kind == "BO" and self._random.random() < 0.8:
            names = [one for one in (*self._probes.hidden_ids, *self._probes.shown_ids) if one.startswith(("Appointment/", "Account/"))]
            name = self._pick(*names, name)
        type, _, id = name.partition("/")
        drawn = [
            write.resource for write in (*self._case.hidden(), *self._case.shown) if write.at and write.name == name and write.resource
        ]
        row = {**(drawn[-1] if drawn else self._draft()), "id": id}
        if row["resourceType"] != type:
            type = row["resourceType"]
        match = (("if-match", f'W/"{self._pick("1", "1", "2", "7")}"'),) if self._random.random() < 0.6 else ()
        return Ask("update", "PUT", f"{type}/{id}", "", (JSON_TYPE, *match), text_of(row))

    def _described(self, name: str) -> str:
        """Return criteria that describe a row: its id, its identifier, or something that others have too."""
        type, _, id = name.partition("/")
        values = (*self._probes.hidden.get((type, "identifier"), ()), *self._probes.shown.get((type, "identifier"), ()))
        known = [f"identifier={quote(value)}" for value in values]
        return self._pick(f"_id={id}", *([self._pick(*known)] * 2 if known else []), f"_id={UNKNOWN}", "status=active")

    def conditional_update(self) -> Ask:
        """Update what criteria describe, with the id of a hidden or visible row in the body or without one."""
        ask = self.update()
        type, _, id = ask.path.partition("/")
        row = json.loads(ask.body)
        if self._random.random() < 0.6:
            del row["id"]
        elif self._random.random() < 0.5:
            row["id"] = self._name().partition("/")[2]
        return Ask("conditional-update", "PUT", type, self._described(f"{type}/{id}"), ask.headers, text_of(row))

    def conditional_delete(self) -> Ask:
        name = self._name()
        return Ask("conditional-delete", "DELETE", name.partition("/")[0], self._described(name))

    def conditional_entries(self) -> Ask:
        """A transaction that updates conditionally, and creates a resource that refers to what is updated."""
        change, address = self.conditional_update(), "urn:uuid:6f1c2a3e-0000-4000-8000-000000000002"
        about = self._draft() | {"basedOn": [{"reference": address}]}
        other = self.update()
        entries = [
            {
                "fullUrl": address,
                "resource": json.loads(change.body),
                "request": {"method": "PUT", "url": f"{change.path}?{change.query}"},
            },
            {"resource": about, "request": {"method": "POST", "url": about["resourceType"]}}
            if self._random.random() < 0.5
            else {"resource": json.loads(other.body), "request": {"method": "PUT", "url": other.path}},
        ]
        kind = self._pick("transaction", "transaction", "batch")
        return Ask("conditional-entries", "POST", "", "", (JSON_TYPE,), text_of({"resourceType": "Bundle", "type": kind, "entry": entries}))

    def patch(self) -> Ask:
        """Patch a hidden or visible row, also by criteria: tests, copies and removes what may be hidden in it."""
        edits = [edit for secret in self._case.secrets for side in secret.edits for edit in side if edit[1] != "meta"]
        own = [edit for edit in edits if edit[0].startswith(("Appointment/", "Account/"))] or edits
        fate = self._random.random()
        if own and fate < 0.5:
            name, element, value = self._pick(*own)
            return self._patch_of_hidden_part(name, element, value)
        if self._probes.hidden_ids and fate < 0.75:
            return self._patch_of_hidden_part(self._pick(*self._probes.hidden_ids), "language", "en")
        ask = self.update()
        name, drawn = ask.path, json.loads(ask.body)
        elements = [name for name in drawn if name not in ("resourceType", "id", "meta")] + ["description", "comment", "reasonCode", "text"]
        operations: list[dict[str, Any]] = []
        for _ in range(self._pick(1, 1, 2)):
            element = self._pick(*elements)
            place = f"/{element}" + self._pick("", "", "/0", "/1", "/-")
            value = drawn.get(element, "zz")
            one = value[0] if isinstance(value, list) and place != f"/{element}" else value
            operations.append(
                self._pick(
                    {"op": "test", "path": place, "value": one}, {"op": "remove", "path": place},
                    {"op": "add", "path": place, "value": one}, {"op": "replace", "path": place, "value": one},
                    {"op": "copy", "from": place, "path": self._pick("/description", "/comment", place)},
                    {"op": "move", "from": place, "path": self._pick("/description", "/comment", f"/{element}/0")},
                )
            )  # fmt: skip
        kind, body = ("content-type", "application/json-patch+json"), json.dumps(operations).encode()
        if (fate := self._random.random()) < 0.4:
            kind, body = JSON_TYPE, text_of(self._fhirpath_patch(name.partition("/")[0], elements))
        elif fate < 0.6:
            kind, body = XML_PATCH_TYPE, self._xml_patch(name.partition("/")[0], elements)
        match = tuple(header for header in ask.headers if header[0] == "if-match" and self._random.random() < 0.3)
        if self._random.random() < 0.2:
            type = name.partition("/")[0]
            return Ask("patch", "PATCH", type, self._described(name), (kind, *match), body)
        return Ask("patch", "PATCH", name, "", (kind, *match), body)

    def _patch_of_hidden_part(self, name: str, element: str, value: Any) -> Ask:
        """Test, copy or remove what is hidden in a visible row."""
        type = name.partition("/")[0]
        if (fate := self._random.random()) < 0.3:
            return Ask("patch", "PATCH", name, "", (JSON_TYPE,), text_of(self._fhirpath_patch(type, [element])))
        if fate < 0.5:
            return Ask("patch", "PATCH", name, "", (XML_PATCH_TYPE,), self._xml_patch(type, [element], value))
        place = f"/{element}"
        operations: list[dict[str, Any]] = self._pick(
            [{"op": "test", "path": place, "value": value}],
            [{"op": "test", "path": place, "value": value}, {"op": "add", "path": "/language", "value": "en"}],
            [{"op": "copy", "from": place, "path": place}],
            [{"op": "remove", "path": place}],
            [{"op": "replace", "path": place, "value": value}],
        )
        header = ("content-type", "application/json-patch+json")
        return Ask("patch", "PATCH", name, "", (header,), json.dumps(operations).encode())

    def _xml_patch(self, type: str, elements: list[str], value: Any = None) -> bytes:
        """Select, and so test, add to, replace or remove an element, also by its value, or an item of one."""
        by_value = f"[@value='{value}']" if isinstance(value, str) and value.isalnum() else ""
        place = f"f:{type}/f:{self._pick(*elements)}" + self._pick(by_value, "", "[1]", "[2]", "/*[1]", "/@value")
        operation = self._pick(
            f'<remove sel="{place}"/>',
            f'<replace sel="{place}">zz</replace>',
            f'<add sel="{place}" type="@id">zz</add>',
            f'<add sel="{place}" pos="after"><f:language value="en"/></add>',
        )
        return f'<diff xmlns:f="http://hl7.org/fhir">{operation}</diff>'.encode()

    def _fhirpath_patch(self, type: str, elements: list[str]) -> dict[str, Any]:
        path = f"{type}.{self._pick(*elements)}"
        place = self._pick("", "[0]", "[1]", ".first()", ".where(display = 'zz')", ".text", ".reference")
        new = {"name": "value", "valueString": "zz"}
        parts = self._pick(
            [{"name": "type", "valueCode": "delete"}, {"name": "path", "valueString": path + place}],
            [{"name": "type", "valueCode": "replace"}, {"name": "path", "valueString": path + place}, new],
            [
                {"name": "type", "valueCode": "add"}, {"name": "path", "valueString": type},
                {"name": "name", "valueString": self._pick("description", "comment", "name")}, new,
            ],
            [
                {"name": "type", "valueCode": "move"}, {"name": "path", "valueString": path},
                {"name": "source", "valueInteger": 1}, {"name": "destination", "valueInteger": 0},
            ],
        )  # fmt: skip
        return {"resourceType": "Parameters", "parameter": [{"name": "operation", "part": parts}]}

    def patch_entry(self) -> Ask:
        asks = (self.patch(), self.patch())
        entries = [
            {
                "request": {"method": "PATCH", "url": f"{ask.path}?{ask.query}" if ask.query else ask.path},
                "resource": json.loads(ask.body)
                if JSON_TYPE in ask.headers
                else {
                    "resourceType": "Binary",
                    "contentType": dict(ask.headers)["content-type"],
                    "data": b64encode(ask.body).decode(),
                },
            }
            for ask in asks
        ]
        kind = self._pick("transaction", "batch")
        return Ask("patch-entry", "POST", "", "", (JSON_TYPE,), text_of({"resourceType": "Bundle", "type": kind, "entry": entries}))

    def sent_content(self) -> Ask:
        """Send the content of a new Binary, or of one with this id, in the context of a row that may be hidden."""
        headers = (("content-type", "text/plain"), ("x-security-context", self._name()))
        method, path = self._pick(("POST", "Binary"), ("PUT", f"Binary/{self._name().partition('/')[2]}"))
        return Ask("sent-content", method, path, "", headers, b"content")

    def validate(self) -> Ask:
        """Ask what a write would say: of a resource that may refer to a hidden row, or about a hidden row."""
        row = self._draft()
        type = row["resourceType"]
        mode = self._pick("create", "update", "delete", "profile")
        parameters: list[dict[str, Any]] = [{"name": "mode", "valueCode": mode}]
        if self._random.random() < 0.7:
            named = {"id": self._name().partition("/")[2]} if mode == "update" else {}
            parameters.append({"name": "resource", "resource": {**row, **named}})
            path = f"{type}/$validate"
        else:
            path = f"{self._name()}/$validate"
        if mode == "profile":
            profile = "portal-account" if path.startswith("Account/") else "proxy-consent"  # these two are there without a package
            parameters.append({"name": "profile", "valueUri": f"{GUIDE}/{profile}"})
        body = row if self._random.random() < 0.3 else {"resourceType": "Parameters", "parameter": parameters}
        if self._random.random() < 0.2:
            entry = {"resource": body, "request": {"method": "POST", "url": path}}
            return Ask("validate", "POST", "", "", (JSON_TYPE,), text_of({"resourceType": "Bundle", "type": "batch", "entry": [entry]}))
        return Ask("validate", "POST", path, "", (JSON_TYPE,), text_of(body))

    def delete(self) -> Ask:
        match = (("if-match", f'W/"{self._pick("1", "2", "7")}"'),) if self._random.random() < 0.4 else ()
        return Ask("delete", "DELETE", self._name(), "", match)


def text_of(row: dict[str, Any]) -> bytes:
    return json.dumps(row).encode()
