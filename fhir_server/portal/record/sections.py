"""What the pages of a record list: the sections of the menu, and the searches of each.  A new list touches this file alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

Layout = Literal["rows", "values", "reports", "documents"]
NOW: Final = "{now}"
"""In a search parameter, the instant of the request."""

_NOT_WITHDRAWN: Final = ("status:not", "entered-in-error")


@dataclass(frozen=True, slots=True)
class Listing:
    """One search of the patient's resources, and the list that it makes.

    ``slug``     its name in URLs, different in each list of a section
    ``query``    search parameters beside the patient; those with :data:`NOW` are about the instant of the request
    ``layout``   how the list looks
    """

    slug: str
    title: str
    type: str
    query: tuple[tuple[str, str], ...]
    layout: Layout = "rows"

    @property
    def conditions(self) -> tuple[tuple[str, str], ...]:
        """The part of the query that decides what is found, not how it is given out."""
        return tuple((name, value) for name, value in self.query if not name.startswith("_"))


@dataclass(frozen=True, slots=True)
class Section:
    """A page of the record.

    ``slug``      its name in URLs
    ``about``     what it is, on the first page of the record
    ``news``      the slugs of the lists that can make it new on the first page
    ``current``, ``ended``  the slugs of the lists of medicines whose entries are joined
    """

    slug: str
    title: str
    about: str
    listings: tuple[Listing, ...]
    news: tuple[str, ...] = ()
    current: tuple[str, ...] = ()
    ended: tuple[str, ...] = ()

    @property
    def joined(self) -> tuple[str, ...]:
        return (*self.current, *self.ended)

    def listing(self, slug: str) -> Listing | None:
        return next((listing for listing in self.listings if listing.slug == slug), None)


# By type: the search parameters that lead to people and places, whose names a list shows
_NAMED: Final[Mapping[str, tuple[str, ...]]] = {
    "Appointment": ("actor",),
    "CareTeam": ("participant",),
    "Communication": ("sender", "recipient"),
    "Coverage": ("payor",),
    "DiagnosticReport": ("performer",),
    "DocumentReference": ("author",),
    "Encounter": ("participant", "location"),
    "ExplanationOfBenefit": ("provider",),
    "Procedure": ("performer",),
}


def _listing(slug: str, title: str, type: str, sort: str, *query: tuple[str, str], layout: Layout = "rows") -> Listing:
    names = [("_include", f"{type}:{parameter}") for parameter in _NAMED.get(type, ())]
    return Listing(slug, title, type, (*(query or (_NOT_WITHDRAWN,)), ("_sort", sort), *names), layout)


def _observations(slug: str, title: str, category: str, *query: tuple[str, str]) -> Listing:
    own = query or (("category", category),)
    return _listing(slug, title, "Observation", "-date", *own, _NOT_WITHDRAWN, layout="values")


def _medicines(slug: str, title: str, type: str, sort: str, *query: tuple[str, str]) -> Listing:
    return _listing(slug, title, type, sort, *(query or (_NOT_WITHDRAWN,)), ("_include", f"{type}:medication"))


# The second list of each pair has what the first has not, so that nothing is in neither.
_ENDED_ORDERS: Final = "completed,stopped,cancelled"
_ENDED_STATEMENTS: Final = "completed,stopped,not-taken"
_STILL_TAKEN: Final = ("status:not", f"{_ENDED_STATEMENTS},entered-in-error")
_PAST_PROBLEMS: Final = "inactive,remission,resolved"
_CLOSED: Final = "completed,rejected,failed,cancelled"
_OFF: Final = "cancelled,noshow"
_VERIFIED: Final = ("verification-status:not", "entered-in-error")
_CATEGORIES: Final = "laboratory,vital-signs,social-history"
# Without lists: its page is not made of searches.
PROOF: Final = Section("vaccination-proof", "Proof of vaccination", "Cards to show, download and print", ())

COMING: Final = _listing(
    "coming", "Coming up", "Appointment", "date", ("date", f"ge{NOW}"), ("status:not", f"{_OFF},entered-in-error,fulfilled")
)  # fmt: skip
REPORTS: Final = _listing(
    "reports", "Reports", "DiagnosticReport", "-date", _NOT_WITHDRAWN, ("_include", "DiagnosticReport:result"), layout="reports"
)  # fmt: skip

MESSAGES: Final = _listing("messages", "Messages", "Communication", "-sent")
TASKS: Final = _listing("open", "Open", "Task", "-authored-on", ("status:not", f"{_CLOSED},entered-in-error"))
ACCOUNTS: Final = _listing("accounts", "Accounts", "Account", "-period")

SECTIONS: Final = (
    Section("results", "Test results", "Reports of the laboratory and others, and each value", (
        REPORTS, _observations("values", "Single values", "laboratory"),
    ), news=("reports", "values")),
    Section("medicines", "Medicines", "What was prescribed, and what is reported as taken", (
        _medicines("prescribed", "Prescribed now", "MedicationRequest", "-authoredon", ("status:not", f"{_ENDED_ORDERS},entered-in-error")),
        _medicines("taken", "Reported as taken", "MedicationStatement", "-effective", _STILL_TAKEN),
        _medicines("ended", "Prescriptions that have ended", "MedicationRequest", "-authoredon", ("status", _ENDED_ORDERS)),
        _medicines("no-longer-taken", "No longer taken", "MedicationStatement", "-effective", ("status", _ENDED_STATEMENTS)),
        _medicines("handed-out", "Handed out by a pharmacy", "MedicationDispense", "-whenhandedover"),
        _medicines("given", "Given during a visit", "MedicationAdministration", "-effective-time"),
    ), news=("prescribed",), current=("prescribed", "taken"), ended=("ended", "no-longer-taken")),
    Section("health-issues", "Health issues", "Diagnoses and problems", (
        _listing("current", "Current", "Condition", "-onset-date", ("clinical-status:not", _PAST_PROBLEMS), _VERIFIED),
        _listing("past", "Past", "Condition", "-onset-date", ("clinical-status", _PAST_PROBLEMS), _VERIFIED),
    )),
    Section("allergies", "Allergies", "What the body does not tolerate", (
        _listing("current", "Current", "AllergyIntolerance", "-date", ("clinical-status:not", "inactive,resolved"), _VERIFIED),
        _listing("past", "Past", "AllergyIntolerance", "-date", ("clinical-status", "inactive,resolved"), _VERIFIED),
    )),
    Section("vaccinations", "Vaccinations", "What was given, and when", (
        _listing("vaccinations", "Vaccinations", "Immunization", "-date"),
    )),
    PROOF,
    Section("vital-signs", "Vital signs", "Blood pressure, pulse, weight and the like", (
        _observations("vital-signs", "Vital signs", "vital-signs"),
    )),
    Section("visits", "Visits", "Coming appointments and past visits", (
        COMING,
        _listing("past", "Past visits", "Encounter", "-date"),
        _listing("off", "Canceled", "Appointment", "-date", ("status", "cancelled")),
        _listing("missed", "Missed", "Appointment", "-date", ("status", "noshow")),
    )),
    Section("appointments", "All appointments", "Coming and past appointments, whatever became of them", (
        _listing("appointments", "All appointments", "Appointment", "-date"),
    )),
    Section("procedures", "Procedures", "Operations, examinations and other treatment", (
        _listing("procedures", "Procedures", "Procedure", "-date"),
    )),
    Section("documents", "Notes and documents", "Doctors’ notes, letters and other documents", (
        _listing("documents", "Notes and documents", "DocumentReference", "-date", layout="documents"),
    ), news=("documents",)),
    Section("care", "Care team and goals", "The people who treat and help, goals and plans", (
        _listing("team", "Care team", "CareTeam", "-date"),
        _listing("goals", "Goals", "Goal", "-start-date", ("lifecycle-status:not", "entered-in-error")),
        _listing("plans", "Care plans", "CarePlan", "-date"),
    )),
    Section("background", "Family and social history", "Illnesses in the family, habits, and other observations", (
        _listing("family", "Family history", "FamilyMemberHistory", "-date"),
        _observations("social", "Social history", "social-history"),
        _observations("other", "Other observations", "", ("category:not", _CATEGORIES)),
    )),
    Section("messages", "Messages", "Messages to and from the practice", (MESSAGES,)),
    Section("requests", "Requests", "What the practice was asked to do or to decide, and what became of it", (
        TASKS,
        _listing("closed", "Closed", "Task", "-authored-on", ("status", _CLOSED)),
    )),
    Section("bills", "Insurance and bills", "Insurance, accounts, statements and what an insurer paid", (
        _listing("insurance", "Insurance", "Coverage", "-_lastUpdated"),
        ACCOUNTS,
        _listing("statements", "Statements", "Invoice", "-date"),
        Listing("charges", "Charges", "ChargeItem", (("_sort", "-occurrence"),)),  # R4 has no parameter for their status
        _listing("benefits", "What an insurer paid", "ExplanationOfBenefit", "-created", ("status:not", "entered-in-error")),
    ), news=("statements",)),
)  # fmt: skip


def find_section(slug: str) -> Section | None:
    return next((section for section in SECTIONS if section.slug == slug), None)
