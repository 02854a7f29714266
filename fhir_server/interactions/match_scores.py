"""How well two Patients agree: points for each part in which they do, so that equal resources always get the same score.

Names are compared without case, diacritics and punctuation, numbers by their digits.  Points are hundredths of R4's score, which is
at most 1.  A birth date or a gender that contradicts the other takes points away and makes no match certain.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final, Literal, NamedTuple

from fhir_server.search.parameter_types.string import fold

Grade = Literal["certain", "probable", "possible", "certainly-not"]

IDENTIFIER: Final = 60
FAMILY: Final = 20
GIVEN: Final = 15
BIRTH_DATE: Final = 25
PART_OF_BIRTH_DATE: Final = 10
GENDER: Final = 5
TELECOM: Final = 15
ADDRESS: Final = 10
POSTAL_CODE: Final = 5
OTHER_BIRTH_DATE: Final = -30
OTHER_GENDER: Final = -10
_CERTAIN, _PROBABLE, _POSSIBLE, _MOST = 90, 60, 30, 100
_SHORTEST_NUMBER = 7


class Match(NamedTuple):
    """The points, from 0 to 100, and the grade."""

    points: int
    grade: Grade


def compare(asked: Mapping[str, Any], stored: Mapping[str, Any]) -> Match:
    """How well a stored Patient fits the one that is asked for; both are valid resources."""
    birth = _birth_dates(str(asked.get("birthDate", "")), str(stored.get("birthDate", "")))
    genders = {str(each["gender"]) for each in (asked, stored) if "gender" in each}
    gender = 0 if len(genders) == 0 or not ("gender" in asked and "gender" in stored) else GENDER if len(genders) == 1 else OTHER_GENDER
    parts = (
        IDENTIFIER if identifiers(asked) & identifiers(stored) else 0,
        FAMILY if families(asked) & families(stored) else 0,
        GIVEN if givens(asked) & givens(stored) else 0,
        birth,
        gender,
        TELECOM if _reach_one(asked, stored) else 0,
        _addresses(asked, stored),
    )
    points = min(max(sum(parts), 0), _MOST)
    if points >= _CERTAIN and min(birth, gender) >= 0:
        return Match(points, "certain")
    return Match(points, "probable" if points >= _PROBABLE else "possible" if points >= _POSSIBLE else "certainly-not")


def identifiers(patient: Mapping[str, Any]) -> frozenset[tuple[str, str]]:
    """(system, value) of the identifiers that have both."""
    return frozenset((str(one["system"]), str(one["value"])) for one in patient.get("identifier", ()) if "system" in one and "value" in one)


def families(patient: Mapping[str, Any]) -> frozenset[str]:
    """The family names, as they are compared."""
    return _plain(name["family"] for name in patient.get("name", ()) if "family" in name)


def givens(patient: Mapping[str, Any]) -> frozenset[str]:
    """The given names, as they are compared."""
    return _plain(given for name in patient.get("name", ()) for given in name.get("given", ()) if given is not None)


def telecoms(patient: Mapping[str, Any]) -> frozenset[str]:
    """The telephone numbers and addresses of e-mail, as written."""
    return frozenset(str(one["value"]) for one in patient.get("telecom", ()) if "value" in one)


def _plain(texts: Iterable[Any]) -> frozenset[str]:
    plain = ("".join(char for char in fold(str(text)) if char.isalnum()) for text in texts)
    return frozenset(text for text in plain if text)


def _birth_dates(asked: str, stored: str) -> int:
    if not asked or not stored:
        return 0
    if asked == stored and len(asked) == len("2000-01-01"):
        return BIRTH_DATE
    shorter = min(len(asked), len(stored))
    return PART_OF_BIRTH_DATE if asked[:shorter] == stored[:shorter] else OTHER_BIRTH_DATE


def _reach_one(asked: Mapping[str, Any], stored: Mapping[str, Any]) -> bool:
    numbers = [[_digits(text) for text in telecoms(each) if "@" not in text] for each in (asked, stored)]
    mails = [{text.casefold() for text in telecoms(each) if "@" in text} for each in (asked, stored)]
    return bool(mails[0] & mails[1]) or any(_is_one_number(one, other) for one in numbers[0] for other in numbers[1])


def _digits(text: str) -> str:
    return "".join(char for char in text if char.isdecimal())


def _is_one_number(one: str, other: str) -> bool:
    """Whether they are equal but for a prefix, such as that of a country."""
    return min(len(one), len(other)) >= _SHORTEST_NUMBER and (one.endswith(other) or other.endswith(one))


def _addresses(asked: Mapping[str, Any], stored: Mapping[str, Any]) -> int:
    whole = [_whole_addresses(each) for each in (asked, stored)]
    if whole[0] & whole[1]:
        return ADDRESS
    codes = [_plain(one["postalCode"] for one in each.get("address", ()) if "postalCode" in one) for each in (asked, stored)]
    return POSTAL_CODE if codes[0] & codes[1] else 0


def _whole_addresses(patient: Mapping[str, Any]) -> frozenset[tuple[str, str]]:
    """(lines, place) of each address that has both; the place is the postal code or the city."""
    found = []
    for one in patient.get("address", ()):
        lines = "".join(sorted(_plain([" ".join(str(line) for line in one.get("line", ()) if line is not None)])))
        place = "".join(_plain([one.get("postalCode") or one.get("city") or ""]))
        found += [(lines, place)] if lines and place else []
    return frozenset(found)
