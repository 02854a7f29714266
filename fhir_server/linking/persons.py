"""Whose record a link is: the name and birth date that the other system states, and how they compare with the account's records here.

They are stored with the link, encrypted, so that the list of linked accounts can tell links apart.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from fhir_server.display.texts import first_text, objects, plain, texts_at
from fhir_server.smart.core.persons import RecordChoice
from fhir_server.web.dates import format_date

_DATE: Final = re.compile(r"\d{4}(-\d\d){0,2}", re.ASCII)
_WORD: Final = re.compile(r"[^\W_]+")
NOT_TOLD: Final = "The other health system did not tell us whose record this is."
WRONG_PATIENT: Final = "The other health system answered with the record of someone else. It is not shown."


class RecordPerson(msgspec.Struct, frozen=True):
    """The person of a record, as the other system states it. ``birth_date`` is a FHIR date; "" if it is not stated."""

    name: str
    birth_date: str = ""

    @property
    def words(self) -> str:
        """``Charlie Child, born 3 May 2014``."""
        return self.name + (f", born {format_date(self.birth_date)}" if self.birth_date else ", birth date not stated")


def parse_patient(resource: Mapping[str, Any]) -> RecordPerson | None:
    """Return the person of a Patient resource (R4, STU3, DSTU2); None if it states no name."""
    names = objects(resource.get("name"))
    by_use = [name for use in ("usual", "official") for name in names if name.get("use") == use]
    for name in (*by_use, *(name for name in names if name.get("use") not in ("old", "maiden", "nickname"))):
        parts = " ".join([*texts_at(name, "given"), *texts_at(name, "family")])
        if stated := plain(name.get("text")) or plain(parts):
            born = _DATE.match(first_text(resource, "birthDate"))
            return RecordPerson(stated, born.group() if born and format_date(born.group()) else "")
    return None


def compare(person: RecordPerson, choices: Sequence[RecordChoice], own: str | None) -> str:
    """Say whose record here has this name and birth date; "" if it is the account's own.

    ``choices``  the records that the account may open here
    ``own``      id of the account's own Patient; None if it has none
    """
    mine = next((choice for choice in choices if choice.patient == own), None)
    if mine is not None and _same_name(person, mine) and _same_birth(person, mine):
        return ""
    other = next((each for each in choices if each is not mine and _same_name(person, each) and _same_birth(person, each)), None)
    if other is not None:
        return f"This is not your own record. The name and birth date are those of {other.name}, whose record you can open here."
    if mine is None:
        return "The name and birth date are not those of a record that you can open here. Check that this is the record you meant."
    if not person.birth_date or not mine.birth_date:
        return _compare_names(person, mine)
    return _compare_both(person, mine)


def _compare_names(person: RecordPerson, mine: RecordChoice) -> str:
    if _same_name(person, mine):
        return "The name is that of your own record here. The birth date could not be compared. Check that this is the record you meant."
    return f"This name is not that of your own record here ({_words(mine)}). Check that this is the record you meant."


def _compare_both(person: RecordPerson, mine: RecordChoice) -> str:
    if _same_birth(person, mine):
        differs = "The name differs"
    else:
        differs = "The birth date differs" if _same_name(person, mine) else "The name and the birth date differ"
    return f"{differs} from your own record here ({_words(mine)}). Check that this is the record you meant."


def _words(choice: RecordChoice) -> str:
    return RecordPerson(choice.name, choice.birth_date).words if choice.birth_date else choice.name


def _same_birth(person: RecordPerson, choice: RecordChoice) -> bool:
    first, second = person.birth_date, choice.birth_date
    return bool(first and second) and first[: len(second)] == second[: len(first)]


def _same_name(person: RecordPerson, choice: RecordChoice) -> bool:
    """Whether one name has all words of the other: a second given name may be missing in one of them."""
    first, second = _name_words(person.name), _name_words(choice.name)
    shorter, longer = sorted((first, second), key=len)
    return shorter == longer or (len(shorter) > 1 and shorter <= longer)


def _name_words(name: str) -> frozenset[str]:
    bare = "".join(each for each in unicodedata.normalize("NFKD", name) if not unicodedata.combining(each))
    return frozenset(_WORD.findall(bare.casefold()))
