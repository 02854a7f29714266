"""Requests that read what is known by name: resources, versions, histories, records and exports; alone, in a batch, later or in XML."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from tests.noninterference.content_requests import ContentRequests
from tests.noninterference.paired_server import Ask
from tests.noninterference.search_requests import SearchRequests
from tests.noninterference.write_requests import JSON_TYPE, UNKNOWN, text_of


class ReadRequests(SearchRequests, ContentRequests):
    """Reads, the other forms in which a read or a search can be asked, and requests that are malformed."""

    def read(self) -> Ask:
        ask = Ask.get("read", self._name())
        return Ask(ask.kind, "HEAD", ask.path) if self._random.random() < 0.2 else ask

    def conditional_read(self) -> Ask:
        return Ask.get("conditional-read", self._name(), if_none_match=f'W/"{self._pick("1", "2", "3", "4")}"')

    def history(self) -> Ask:
        return Ask.get("history", f"{self._name()}/_history")

    def vread(self) -> Ask:
        return Ask.get("vread", f"{self._name()}/_history/{self._pick('1', '2', '3', '4', '9')}")

    def everything(self) -> Ask:
        patient = self._patient if self._random.random() < 0.9 else self._pick("teen", "elder", "adult", UNKNOWN)
        pairs = [("_count", self._pick("1", "2", "5"))] if self._random.random() < 0.6 else []
        fate = self._random.random()
        if fate < 0.3:
            pairs.append(("_since", self._value(self._type(), "_lastUpdated", "date")))
        elif fate < 0.5:
            pairs += [("start", self._pick("2026-03-02", "2026-05-20")), ("end", self._pick("2026-08-07", "2026-12-01"))]
        elif fate < 0.7:
            pairs.append(("_type", ",".join({self._type(), self._type()})))
        return Ask.get("everything", f"Patient/{patient}/$everything", pairs)

    def export(self) -> Ask:
        pairs = [("_type", ",".join({self._type(), self._type()}))] if self._random.random() < 0.5 else []
        if self._random.random() < 0.3:
            pairs.append(("_since", self._value(self._type(), "_lastUpdated", "date")))
        if self._random.random() < 0.2:
            pairs.append(("_elements", self._pick("id", "code,subject", "Observation.note,result")))
        if self._random.random() < 0.3:
            type = self._type()
            pairs.append(("_typeFilter", f"{type}?" + "=".join(self._criterion(type))))
        return Ask.get("export", self._pick("$export", "Patient/$export", "Group/zz/$export"), pairs, prefer="respond-async")

    def _reads(self) -> tuple[Callable[[], Ask], ...]:
        return (self.search, self.counted, self.revinclude, self.sorted, self.read, self.vread, self.history, self.type_history)

    def batch(self) -> Ask:
        drawn = [self._pick(*self._reads())() for _ in range(4)]
        urls = [f"{ask.path}?{ask.query}" if ask.query else ask.path for ask in drawn if ask.method == "GET"]
        entries = [{"request": {"method": "GET", "url": url}} for url in urls]
        kind = self._pick("batch", "batch", "transaction")
        return Ask("batch", "POST", "", "", (JSON_TYPE,), text_of({"resourceType": "Bundle", "type": kind, "entry": entries}))

    def later(self) -> Ask:
        """A question to be answered later; the answer is fetched at once, and again after hidden writes."""
        ask = self._pick(self.search, self.whole, self.history, self.everything, self.compartment, self.counted, self.chained)()
        return replace(ask, kind="later", headers=(("prefer", "respond-async"),))

    def in_xml(self) -> Ask:
        """A question that is answered in XML."""
        make = self._pick(self.search, self.include, self.read, self.history, self.everything, self.batch, self.patch, self.validate)
        ask = make()
        return replace(ask, kind="in-xml", headers=(*ask.headers, ("accept", "application/fhir+xml")))

    def malformed(self) -> Ask:
        type = self._type()
        return self._pick(
            Ask("malformed", "GET", type, "_count=x"), Ask("malformed", "GET", type, "code=%zz"), Ask("malformed", "GET", type, "date=gtx"),
            Ask("malformed", "GET", type, "_sort=nonsense&_page=AAAA"), Ask("malformed", "GET", f"{type}/{'x' * 70}"),
            Ask("malformed", "POST", type, "", (JSON_TYPE,), b"{"),
            Ask("malformed", "POST", type, "", (JSON_TYPE,), b'{"resourceType":"%s"}' % type.encode()),
            Ask("malformed", "PATCH", self._name(), "", (JSON_TYPE,), b"[]"), Ask("malformed", "PATCH", type, "", (JSON_TYPE,), b"[]"),
            Ask("malformed", "GET", f"{self._name()}/$nothing"),
            Ask("malformed", "GET", type, "subject.nothing=x"), Ask("malformed", "GET", type, "_has:Observation:patient=718-7"),
            Ask("malformed", "GET", "Nothing/1"), Ask("malformed", "GET", f"{self._name()}/_history/x"), Ask("malformed", "OPTIONS", type),
        )  # fmt: skip
