"""What another system is asked for: the sections of the page of a linked record, and the searches of each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Query:
    """One search of the person's resources of a type.

    ``what``     what the resources are called in sentences
    ``sort``     how the system is asked to sort
    ``dates``    where the dates are by which it then sorts; the first one that is there counts
    ``filters``  further search parameters
    ``include``  value of ``_include``; "" for none
    ``former``   the type that DSTU2 has instead. It is asked for if there is nothing of this one.
    """

    type: str
    what: str
    sort: str
    dates: tuple[str, ...]
    filters: tuple[tuple[str, str], ...] = ()
    include: str = ""
    former: Query | None = None


@dataclass(frozen=True, slots=True)
class SectionQueries:
    """A section of the page. ``slug`` names it in URLs."""

    title: str
    queries: tuple[Query, ...]

    @property
    def slug(self) -> str:
        return self.title.lower().replace(" ", "-")


_EFFECTIVE: Final = ("effectiveDateTime", "effectivePeriod.start")


def _observations(what: str, category: str) -> Query:
    return Query(
        "Observation", what, "-date", ("effectiveDateTime", "effectiveInstant", "effectivePeriod.start"), (("category", category),)
    )


def _medicines(type: str, what: str, sort: str, *dates: str, former: Query | None = None) -> Query:
    return Query(type, what, sort, dates, include=f"{type}:medication", former=former)


_ORDERS: Final = _medicines("MedicationOrder", "prescriptions", "-datewritten", "dateWritten")
SECTIONS: Final = (
    SectionQueries("Allergies", (Query("AllergyIntolerance", "allergies", "-date", ("recordedDate",)),)),
    SectionQueries(
        "Medicines",
        (
            _medicines("MedicationRequest", "prescriptions", "-authoredon", "authoredOn", former=_ORDERS),
            _medicines("MedicationStatement", "reported medicines", "-effective", *_EFFECTIVE),
            _medicines("MedicationDispense", "medicines that were handed out", "-whenhandedover", "whenHandedOver"),
            _medicines("MedicationAdministration", "medicines that were given", "-effective-time", *_EFFECTIVE),
        ),
    ),
    SectionQueries("Vaccinations", (Query("Immunization", "vaccinations", "-date", ("occurrenceDateTime",)),)),
    SectionQueries("Test results", (_observations("test results", "laboratory"),)),
    SectionQueries("Vital signs", (_observations("vital signs", "vital-signs"),)),
    SectionQueries("Reports", (Query("DiagnosticReport", "reports", "-date", _EFFECTIVE),)),
    SectionQueries(
        "Visits",
        (
            Query("Appointment", "appointments", "-date", ("start",)),
            Query("Encounter", "visits", "-date", ("period.start",)),
        ),
    ),
    SectionQueries("Health issues", (Query("Condition", "health issues", "-recorded-date", ("recordedDate",)),)),
    SectionQueries("Procedures", (Query("Procedure", "procedures", "-date", ("performedDateTime", "performedPeriod.start")),)),
    SectionQueries("Documents", (Query("DocumentReference", "documents", "-date", ("date",)),)),
    SectionQueries("Care team", (Query("CareTeam", "care teams", "-date", ("period.start",)),)),
    SectionQueries("Messages", (Query("Communication", "messages", "-sent", ("sent",)),)),
)
QUERIES: Final = tuple(query for section in SECTIONS for query in section.queries)
TYPES: Final = tuple(dict.fromkeys(each.type for query in QUERIES for each in (query, query.former) if each))
