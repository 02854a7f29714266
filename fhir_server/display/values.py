"""The values of observations in words: ``value[x]``, components, reference ranges, interpretation and absent reasons.

A value that is there but cannot be read is said to be there: leaving it out, or a part of it, could turn it into its opposite.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from fhir_server.display.texts import first_text, number, objects, plain, text_of
from fhir_server.web.dates import format_date

UNREADABLE: Final = "a value that cannot be shown here"
NO_VALUE: Final = "No value was sent"
_COMPARATORS: Final = ("<", "<=", ">", ">=", "ad")  # "ad" (R5): sufficient to achieve this total
# https://hl7.org/fhir/R4/valueset-data-absent-reason.html; STU3 and DSTU2 have a part of it
_ABSENT: Final = {
    "unknown": "not known",
    "asked-unknown": "asked, but not known",
    "asked": "asked, but not known",
    "temp-unknown": "not known yet",
    "temp": "not known yet",
    "not-asked": "not asked",
    "asked-declined": "asked, but declined",
    "masked": "withheld",
    "not-applicable": "does not apply",
    "unsupported": "not supported",
    "as-text": "given as text only",
    "astext": "given as text only",
    "error": "an error",
    "not-a-number": "not a number",
    "nan": "not a number",
    "negative-infinity": "below what can be measured",
    "positive-infinity": "above what can be measured",
    "not-performed": "not performed",
    "not-permitted": "not permitted",
}
# https://hl7.org/fhir/R4/v2/0078/index.html and the codes of v3 ObservationInterpretation
_INTERPRETATIONS: Final = {
    "H": "High", "HH": "Critical high", "HU": "Very high", "L": "Low", "LL": "Critical low", "LU": "Very low", "N": "Normal",
    "A": "Abnormal", "AA": "Critical abnormal", "POS": "Positive", "NEG": "Negative", "IND": "Indeterminate", "E": "Equivocal",
    "DET": "Detected", "ND": "Not detected", "R": "Resistant", "S": "Susceptible", "I": "Intermediate", "<": "Below what can be measured",
    ">": "Above what can be measured", "U": "Significant rise", "D": "Significant fall", "B": "Better", "W": "Worse",
}  # fmt: skip


def quantity(value: object) -> str:
    """Format a Quantity with its comparator and unit: ``< 4 mg/dL``."""
    if not isinstance(value, dict):
        return UNREADABLE
    amount, sign = number(value.get("value")), value.get("comparator")
    if not amount:
        return _absent(value.get("_value")) or UNREADABLE
    if sign is not None and sign not in _COMPARATORS:
        return UNREADABLE  # without its comparator, a value would say something else
    unit = plain(value.get("unit")) or plain(value.get("code"))
    words = f"{amount} {unit}".strip()
    return f"{sign} {words}" if sign else words


def money(value: object) -> str:
    """Format a Money: ``12.50 USD``."""
    amount = number(value.get("value")) if isinstance(value, dict) else ""
    currency = plain(value.get("currency")) if isinstance(value, dict) else ""
    return f"{amount} {currency}".strip() if amount else UNREADABLE


def value_range(value: object) -> str:
    """Format a Range: ``3 to 5 mg``, ``3 mg or more``."""
    low, high = (value.get("low"), value.get("high")) if isinstance(value, dict) else (None, None)
    if low is not None and high is not None:
        return f"{quantity(low)} to {quantity(high)}"
    if low is not None:
        return f"{quantity(low)} or more"
    return f"{quantity(high)} or less" if high is not None else UNREADABLE


def _ratio(value: object) -> str:
    if not isinstance(value, dict):
        return UNREADABLE
    return f"{quantity(value.get('numerator'))} : {quantity(value.get('denominator'))}"


def _boolean(value: object) -> str:
    return {True: "Yes", False: "No"}.get(value, UNREADABLE) if isinstance(value, bool) else UNREADABLE


def _period(value: object) -> str:
    start, end = (_moment(value.get("start"), ""), _moment(value.get("end"), "")) if isinstance(value, dict) else ("", "")
    if start and end:
        return f"{start} to {end}"
    return f"from {start}" if start else f"until {end}" if end else UNREADABLE


def _moment(value: object, otherwise: str = UNREADABLE) -> str:
    text = plain(value)
    day, clock = format_date(text), text[11:16]
    return f"{day}, {clock}" if day and clock else day or otherwise


def _text(value: object) -> str:
    return text_of(value) or UNREADABLE


def _elsewhere(value: object) -> str:
    return UNREADABLE


_FORMATS: Final[Mapping[str, Callable[[object], str]]] = {
    "valueQuantity": quantity,
    "valueCodeableConcept": _text,
    "valueString": _text,
    "valueBoolean": _boolean,
    "valueInteger": _text,
    "valueRange": value_range,
    "valueRatio": _ratio,
    "valueTime": _text,
    "valueDateTime": _moment,
    "valuePeriod": _period,
    "valueSampledData": _elsewhere,
    "valueAttachment": _elsewhere,
    "valueReference": _elsewhere,
}


def result(item: Mapping[str, Any]) -> str:
    """Describe the value of an Observation or of one of its components, with its interpretation: ``< 4 mg/dL (Low)``."""
    found = [(_FORMATS.get(name) or _elsewhere)(value) for name, value in item.items() if name.startswith("value") and value is not None]
    absent = [_absent(value) for name, value in item.items() if name.startswith("_value")]
    if (reason := item.get("dataAbsentReason")) is not None:
        absent.append(f"No value: {_reason(reason)}")
    words = ", ".join(dict.fromkeys([*found, *filter(None, absent)]))
    meaning = ", ".join(dict.fromkeys(_interpretations(item)))
    return f"{words} ({meaning})" if words and meaning else words or meaning


def results(resource: Mapping[str, Any]) -> Iterator[str]:
    """Yield what an Observation found: its value and those of its components; :data:`NO_VALUE` if there is none."""
    own, components = result(resource), objects(resource.get("component"))
    if own:
        yield own
    for component in components:
        yield f"{first_text(component, 'code') or 'Part without a name'}: {result(component) or NO_VALUE}"
    if not own and not components:
        has_members = bool(objects(resource.get("hasMember")) or objects(resource.get("related")))
        yield "A group of results, which are entries of their own" if has_members else NO_VALUE


def reference_ranges(resource: Mapping[str, Any]) -> str:
    """Return the reference ranges in words; "" if there are none."""
    return "; ".join(dict.fromkeys(filter(None, map(_reference_range, objects(resource.get("referenceRange"))))))


def _reference_range(item: Mapping[str, Any]) -> str:
    limits = value_range(item) if item.get("low") is not None or item.get("high") is not None else plain(item.get("text"))
    whom = [first_text(item, "type", "meaning"), first_text(item, "appliesTo")]
    age = f"age {value_range(item['age'])}" if isinstance(item.get("age"), dict) else ""
    notes = ", ".join(filter(None, [*whom, age]))
    return f"{limits} ({notes})" if limits and notes else limits


def _interpretations(item: Mapping[str, Any]) -> Iterator[str]:
    for concept in objects(item.get("interpretation")):
        text = text_of(concept)
        yield _INTERPRETATIONS.get(text, text) if text else "an interpretation that cannot be shown here"


def why_absent(value: object) -> str:
    """Return why a value is absent, from the extension that R4 has for this; "" if it does not say."""
    # A primitive without a value has its reason in an extension.
    for extension in objects(value.get("extension")) if isinstance(value, dict) else []:
        if plain(extension.get("url")).endswith("/data-absent-reason"):
            return _reason(extension.get("valueCode"))
    return ""


def _absent(value: object) -> str:
    reason = why_absent(value)
    return f"No value: {reason}" if reason else ""


def _reason(value: object) -> str:
    codings = objects(value.get("coding")) if isinstance(value, dict) else []
    codes = [plain(value), *(plain(coding.get("code")) for coding in codings)]
    known = next((_ABSENT[code.lower()] for code in codes if code.lower() in _ABSENT), "")
    return known or text_of(value) or "the reason cannot be shown here"
