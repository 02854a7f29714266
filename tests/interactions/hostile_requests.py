"""Hostile requests as data: texts, bodies, headers, parameters and paths that no honest client sends, drawn at random from a seed."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import quote_plus

Headers = list[tuple[str, str]]
JSON: Final = ("content-type", "application/fhir+json")


@dataclass(slots=True)
class Hostile:
    """One request.  ``path`` is what an ASGI server passes on: decoded, below the FHIR base; ``query`` is as it came."""

    method: str
    path: str
    query: bytes = b""
    headers: Headers = field(default_factory=list)
    body: bytes = b""


GOOD: Final[dict[str, Any]] = {
    "resourceType": "Observation", "id": "hostile", "status": "final", "subject": {"reference": "Patient/adult"},
    "code": {"coding": [{"system": "http://loinc.org", "code": "718-7"}]}, "valueQuantity": {"value": 13.5, "unit": "g/dL"},
    "text": {"status": "generated", "div": '<div xmlns="http://www.w3.org/1999/xhtml">x</div>'},
}  # fmt: skip
TYPES: Final = ("Observation", "Patient", "Consent", "Encounter", "Bundle", "Nope", "observation", "Binary", "Parameters")
# Texts that break parsers: control characters, encodings, numbers past every type, and shapes on which careless expressions backtrack.
TEXTS: Final[tuple[str, ...]] = (
    "", " ", "\0", "a\0b", "\x01", "\x1f", "\x7f", "\u2028", "\ufeff", "\uffff", "\U0010ffff", "é" * 300, "\u202e", "🙂" * 50,
    "0", "-1", "1e400", "-1e400", "1" * 400, "9" * 5000, "0" * 5000, "NaN", "Infinity", "1e", "٣", "²", "0x10", "1_000", "+1", "--1",
    "'", "' OR 1=1 --", '"; DROP TABLE res; --', "${jndi:ldap://x}", "{{7*7}}", "%s%n", "%00", "%ff", "%", "\\", "\\\\", "\\,",
    "$ne", "|", "||",
    "a|b|c|d", ",", ",,,", "..", "../../etc/passwd", "/", "//", "file:///etc/passwd", "http://169.254.169.254/", "javascript:alert(1)",
    "<script>alert(1)</script>", "<!DOCTYPE x [<!ENTITY y SYSTEM 'file:///etc/passwd'>]><x>&y;</x>", "]]>", "<!--", "&lt;",
    "null", "true", "[]", "{}", "undefined", "_page", "$everything", "_history", "Patient/adult", "Patient/adult/_history/1",
    "urn:uuid:x",
    "2020-13-45", "0000-00-00", "9999-12-31T23:59:60Z", "2020-02-30", "ge", "ge2020", "ap9999", "ne" * 40, "2020-01-01T00:00:00+99:99",
    "a" * 100_000, "a" * 5000 + "!", "1" * 3000 + ".", "-" * 5000, " " * 5000 + "x", "," * 450, "|" * 2000, "\\" * 3001, "a," * 400,
    "((((" * 800,
    "0." * 1000, "a@" * 2000, "/" * 3000, "urn:oid:" + "1." * 2000, "http://" + "a" * 4000, "W/" * 2000, '"' * 3001, 'W/"1",' * 900,
    "%20" * 2000,
)  # fmt: skip
PARAMETERS: Final = (
    "_id", "_lastUpdated", "_tag", "_profile", "_security", "_count", "_sort", "_page", "_include", "_revinclude", "_elements",
    "_summary", "_total",
    "_format", "_pretty", "_type", "_since", "start", "end", "_at", "code", "code:not", "code:missing", "code:in", "date",
    "date:missing", "subject",
    "subject:Patient", "subject:missing", "patient", "patient.name", "_has:Observation:patient:code", "value-quantity",
    "combo-code", "combo-value-quantity",
    "name", "name:contains", "name:exact", "identifier", "identifier:of-type", "birthdate", "family", "given", "telecom", "url",
    "status:not", "category",
    "_filter", "_text", "_content", "_list", "_query", "access_token", ":", "::", "code:", ":not", "", "\0", "code\0", "é", "a" * 3000,
)  # fmt: skip
HEADER_NAMES: Final = (
    "accept", "prefer", "content-type", "content-length", "content-encoding", "if-match", "if-none-match", "if-modified-since",
    "if-unmodified-since",
    "if-none-exist", "x-provenance", "x-http-method-override", "x-forwarded-host", "host", "cookie", "range", "expect", "origin",
    "authorization",
)  # fmt: skip
HEADER_TEXTS: Final = (
    "application/fhir+json", "application/fhir+xml", "application/json-patch+json", "text/html;q=0.1, */*;q=x", "return=minimal",
    "return=nothing",
    "handling=strict", "respond-async", "*", 'W/"1"', 'W/"9"', '"1", W/"2"', "Sat, 21 Nov 2026 17:00:00 GMT",
    "Sat, 99 Xxx 99999 99:99:99 GMT",
    "identifier=a|b", "Patient?identifier=a|b", "?", "http://127.0.0.1:8000/fhir/Patient?_id=adult", "bytes=0-", "gzip", "Bearer",
    "Bearer \0", "Basic eDp5",
    "application/x-www-form-urlencoded", "application/fhir+json; charset=utf-16", "multipart/form-data; boundary=x", "(" * 2000,
    "\x80\xff",
)  # fmt: skip
METHODS: Final = (
    "GET",
    "GET",
    "GET",
    "HEAD",
    "POST",
    "PUT",
    "DELETE",
    "PATCH",
    "OPTIONS",
    "TRACE",
    "CONNECT",
    "get",
    "FOO",
    "",
    "GET\0",
    "\xff",
)
STEPS: Final = (
    *TYPES, "adult", "hostile", "nobody", "_history", "_search", "$everything", "$meta", "$meta-add", "$meta-delete", "$validate",
    "$export",
    "$export-status", "$export-file", "$", "_", "metadata", ".well-known", "smart-configuration", "1", "0", "-1", "9" * 400,
    "a" * 65, "a" * 20_000,
    "..", ".", "\0", "é", " ", "%00", "a\\b", "?", "#", "\ufffd", "\x7f", "Patient.ndjson", "../../secret",
)  # fmt: skip


class Chance(random.Random):
    """Draws hostile values."""

    def text(self) -> str:
        if self.random() < 0.15:
            return "".join(chr(self.choice((self.randint(0, 0x2FF), self.randint(32, 126)))) for _ in range(self.randint(0, 30)))
        return self.choice(TEXTS)

    def value(self, depth: int = 2) -> Any:
        """A JSON value of a random type."""
        kind = self.randint(0, 9 if depth else 6)
        if kind < 3:
            return self.text()
        if kind < 7:
            return self.choice((None, True, False, 0, -1, 1.5, 10**30, 1e300, [], {}, [[]], [None], {"": None}, -0.0))
        if kind == 7:
            return [self.value(depth - 1) for _ in range(self.randint(0, 4))]
        names = (
            "reference",
            "value",
            "code",
            "system",
            "id",
            "url",
            "resourceType",
            "extension",
            "_id",
            "",
            "\0",
            "$ref",
            "__proto__",
            "div",
        )
        return {self.choice(names): self.value(depth - 1) for _ in range(self.randint(0, 4))}

    def header(self) -> tuple[str, str]:
        value = self.choice(HEADER_TEXTS) if self.random() < 0.7 else self.text()
        return self.choice(HEADER_NAMES), value.encode("latin-1", "replace").decode("latin-1")

    def spoilt(self, good: Any) -> Any:
        """The value with one or two places replaced, added or removed."""
        value = json.loads(json.dumps(good))
        for _ in range(self.randint(1, 2)):
            node = value
            while self.random() < 0.6 and isinstance(node, dict | list) and node:
                inner = self.choice(list(node.values()) if isinstance(node, dict) else node)
                if not isinstance(inner, dict | list):
                    break
                node = inner
            if isinstance(node, list):
                node.append(self.value())
            elif self.random() < 0.2 and node:
                node.pop(self.choice(list(node)))
            else:
                node[self.choice((*node, "_" + self.text()[:10], self.text()[:50], "extension", "contained", "meta", "id", "text"))] = (
                    self.value()
                )
        return value

    def writing(self, body: bytes) -> Hostile:
        """A request that sends this body as a resource or Bundle."""
        method, path = self.choice(
            (("POST", "/Observation"), ("PUT", "/Observation/hostile"), ("POST", "/"), ("POST", "/Patient"), ("POST", "/Bundle"))
        )
        return Hostile(method, path, headers=[JSON], body=body)


def bad_json(chance: Chance) -> Hostile:
    good = json.dumps(GOOD).encode()
    cut = chance.randint(0, len(good))
    body = chance.choice((
        lambda: good[:cut], lambda: good[:cut] + chance.randbytes(chance.randint(1, 9)) + good[cut:],
        lambda: good[:cut] + b"\0" + good[cut:],
        lambda: chance.randbytes(chance.randint(0, 200)), lambda: b"\xef\xbb\xbf" + good, lambda: json.dumps(GOOD).encode("utf-16"),
        lambda: good.replace(b"13.5", chance.choice((b"1e400", b"-1e400", b"1" * 20_000, b"0." + b"0" * 20_000, b"01", b".5",
        b"NaN", b"-Infinity"))),
        lambda: good.replace(b'"final"', chance.choice((rb'"\ud800"', rb'"\u0000"', rb'"\udc00\ud800"', rb'"\x"', b'"\xff"',
        b"'final'", b'"a\nb"'))),
        lambda: good[:-1] + b"," + chance.choice((b'"status":"final"}', b'"id":"x","id":"y"}', b"}", b'"resourceType":"Patient"}')),
        lambda: good + chance.choice((b"x", b"{}", b"\0", b"//", b" " * 5000)),
        lambda: chance.choice((b"", b"null", b"[]", b"0", b'""', b"true", b"{", b"[" * 9, b'{"a"', b"\xff\xfe")),
    ))()  # fmt: skip
    return chance.writing(body)


def nesting(chance: Chance) -> Hostile:
    depth = chance.choice((30, 90, 101, 200, 1000, 5000, 20_000))
    opened, closed = chance.choice(
        ((b"[", b"]"), (b'{"a":', b"}"), (b'{"extension":[', b"]}"), (b'{"contained":[{"resourceType":"Patient"},', b"]}"))
    )
    inner = opened * depth + (b"1" if chance.random() < 0.5 else b"") + closed * (depth if chance.random() < 0.8 else 0)
    if chance.random() < 0.5:
        return chance.writing(inner)
    name = chance.choice(("extension", "contained", "note", "code", "text", "meta"))
    return chance.writing(json.dumps(GOOD).encode()[:-1] + b',"%s":' % name.encode() + inner + b"}")


def wrong_types(chance: Chance) -> Hostile:
    return chance.writing(json.dumps(chance.spoilt(GOOD)).encode("utf-8", "surrogatepass"))


def markup(chance: Chance) -> Hostile:
    expansions = ["ha" * 9, *(f"&a{number};" * 10 for number in range(8))]
    entities = "".join(f'<!ENTITY a{number} "{text}">' for number, text in enumerate(expansions))
    document = chance.choice((
        f"<!DOCTYPE x [{entities}]><x>&a8;</x>", "<!DOCTYPE x SYSTEM 'http://127.0.0.1:1/x.dtd'><x/>",
        '<?xml version="1.0"?><Patient xmlns="http://hl7.org/fhir"/>',
        "<!DOCTYPE div [<!ENTITY e SYSTEM 'file:///etc/passwd'>]><div xmlns=\"http://www.w3.org/1999/xhtml\">&e;</div>",
        '<div xmlns="http://www.w3.org/1999/xhtml">' + "<b>" * chance.choice((10, 500, 5000)) + "</div>",
        '<div xmlns="http://www.w3.org/1999/xhtml">' + "<b>x</b>" * 500 + "</div>", "<div>" + chance.text() + "</div>",
        "<div " + "a='b' " * 500 + "/>",
        f'<div xmlns="http://www.w3.org/1999/xhtml"><a href="{chance.text()[:200]}">x</a></div>', "<![CDATA[" * 200, "<div/>" * 200,
        chance.text(),
    ))  # fmt: skip
    if chance.random() < 0.4:
        return Hostile(
            "POST",
            "/Patient",
            headers=[("content-type", chance.choice(("application/fhir+xml", "text/xml", "application/fhir+json")))],
            body=document.encode("utf-8", "replace"),
        )
    return chance.writing(json.dumps(GOOD | {"text": {"status": "generated", "div": document}}).encode())


def parameters(chance: Chance) -> Hostile:
    pairs = [(chance.choice(PARAMETERS), chance.text()) for _ in range(chance.randint(1, 4))]
    if chance.random() < 0.15:
        pairs = pairs[:1] * chance.choice((16, 31, 64, 199, 201, 299, 301, 2000))
    if chance.random() < 0.15:
        pairs.append(
            ("_sort", ",".join(chance.choice(("date", "-date", "code", "_id", "x")) for _ in range(chance.choice((5, 16, 40, 600)))))
        )
    text = "&".join(
        f"{quote_plus(name, errors='replace')}={quote_plus(value[:20_000], errors='replace')}" for name, value in pairs
    ).encode()
    if chance.random() < 0.1:
        text = chance.choice(
            (b"%", b"%zz=1", b"a=%ff", b"\xff=\xfe", b"&&&&", b"=", b"=&=", b"a" * 50_000, b"code=" + b"%41" * 9000, b";", text + b"\x00")
        )
    type = chance.choice(TYPES[:5])
    if chance.random() < 0.25:
        return Hostile("POST", f"/{type}/_search", headers=[("content-type", "application/x-www-form-urlencoded")], body=text)
    path = chance.choice(
        (f"/{type}", f"/{type}", f"/{type}", "/Patient/adult/$everything", "/Patient/adult", "/Patient/adult/_history", "/$export", "/")
    )
    return Hostile(chance.choice(("GET", "GET", "GET", "HEAD")), path, text)


def headers(chance: Chance) -> Hostile:
    sent = [chance.header() for _ in range(chance.choice((1, 1, 2, 3, 5, 200)))]
    if chance.random() < 0.1:
        sent += [("x-" + "a" * chance.randint(1, 900), "b" * chance.choice((10, 50_000))) for _ in range(chance.choice((1, 20)))]
    request = chance.choice((
        Hostile("GET", "/Patient/adult"), Hostile("GET", "/Patient/adult/_history/1"), Hostile("GET", "/Observation",
        b"code=718-7"), Hostile("HEAD", "/Patient/adult"),
        Hostile("POST", "/Observation", headers=[JSON], body=json.dumps(GOOD).encode()), Hostile("GET", "/metadata"), Hostile("GET",
        "/$export"),
        Hostile("PUT", "/Observation/hostile", headers=[JSON], body=json.dumps(GOOD).encode()), Hostile("DELETE", "/Observation/hostile"),
        Hostile("GET", "/Patient/adult/$everything"), Hostile("POST", "/", headers=[JSON],
        body=b'{"resourceType":"Bundle","type":"batch"}'),
    ))  # fmt: skip
    return Hostile(request.method, request.path, request.query, request.headers + sent, request.body)


def paths(chance: Chance) -> Hostile:
    path = "/" + "/".join(chance.choice(STEPS) for _ in range(chance.choice((0, 1, 2, 2, 3, 3, 4, 4, 5, 60, 2000))))
    method = chance.choice(METHODS)
    body = json.dumps(GOOD).encode() if chance.random() < 0.5 else b""
    return Hostile(method, path[:100_000], b"" if chance.random() < 0.7 else b"_format=json", [JSON] if body else [], body)


def entry(chance: Chance) -> Any:
    """One entry of a Bundle."""
    urn = f"urn:uuid:9d1c1c5c-0000-4000-8000-00000000000{chance.randint(0, 5)}"
    other = f"urn:uuid:9d1c1c5c-0000-4000-8000-00000000000{chance.randint(0, 5)}"
    url = chance.choice((
        "Observation", "Observation/hostile", "Patient?_id=hostile", "Observation/hostile/_history/1", "Observation/$validate",
        "Observation?status=final", "", "?", "Nope/x",
        "Patient/adult/$everything", "$export", "http://elsewhere.example/Patient", "//x/y", "Patient/adult#x", "metadata", "",
        chance.text()[:3000],
    ))  # fmt: skip
    resource = GOOD | {
        "subject": {"reference": chance.choice((other, "Patient/adult", "Patient?identifier=a|b", "#x", f"Patient?_id={other}"))}
    }
    made: dict[str, Any] = {"fullUrl": chance.choice((urn, urn, urn, "", "x", "http://a/Observation/1/_history/1")), "resource": resource}
    made["request"] = {"method": chance.choice(("GET", "HEAD", "POST", "POST", "PUT", "DELETE", "PATCH", "FOO")), "url": url}
    for name in ("ifMatch", "ifNoneMatch", "ifModifiedSince", "ifNoneExist"):
        if chance.random() < 0.15:
            made["request"][name] = chance.choice((*HEADER_TEXTS[8:16], f"subject={other}", "2026-11-21T12:00:00Z", chance.text()[:2000]))
    return chance.spoilt(made) if chance.random() < 0.4 else made


def bundles(chance: Chance) -> Hostile:
    kind = chance.choice(("batch", "transaction", "transaction", "transaction", "document", "message", "collection", "history", "x", None))
    entries: Any = [entry(chance) for _ in range(chance.choice((0, 1, 1, 2, 3, 6)))]
    if chance.random() < 0.1:
        entries = chance.choice((chance.value(), entries * 60, [{}] * 6000, [[]] * 9, [entries]))
    bundle: Any = {"resourceType": "Bundle", "type": kind, "entry": entries}
    if chance.random() < 0.1:
        for _ in range(chance.choice((1, 5, 60))):
            bundle = {
                "resourceType": "Bundle",
                "type": kind,
                "entry": [{"resource": bundle, "request": {"method": "POST", "url": "Bundle"}}],
            }
    if chance.random() < 0.15:
        bundle = chance.spoilt(bundle)
    return Hostile("POST", chance.choice(("/", "/", "/", "/Bundle")), headers=[JSON], body=json.dumps(bundle).encode())


KINDS: Final[dict[str, Callable[[Chance], Hostile]]] = {
    "bad JSON": bad_json,
    "nesting": nesting,
    "wrong types": wrong_types,
    "markup": markup,
    "parameters": parameters,
    "headers": headers,
    "paths": paths,
    "bundles": bundles,
}
