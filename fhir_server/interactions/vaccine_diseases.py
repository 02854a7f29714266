"""Against which diseases a vaccine is, by its CVX code: a health card is of one disease.

From CDC's table of vaccine groups (https://www2.cdc.gov/vaccines/iis/iisstandards/vaccines.asp?rpt=vg).  Antibodies, antitoxins and
skin tests are no vaccines and not in it.  A new vaccine touches this file alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

VALUE_SETS: Final = "https://terminology.smarthealth.cards/ValueSet/"


class Disease(NamedTuple):
    """A disease.

    ``slug``       its name in URLs
    ``name``       as people call it
    ``codes``      the CVX codes of the vaccines against it
    ``value_set``  the family of VCI's value sets of these codes: what stands between ``immunization-`` and the code system; "": none
    """

    slug: str
    name: str
    codes: frozenset[str]
    value_set: str = ""


def _codes(text: str) -> frozenset[str]:
    """The codes in a text such as ``03 207-213``."""
    found = [part.partition("-") for part in text.split()]
    return frozenset(f"{code:02}" for first, _, last in found for code in range(int(first), int(last or first) + 1))


_WITH_TETANUS: Final = "01 09 20 22 28 50 102 106 107 110 113 115 120 130 132 138 139 146 170 195 196 198"

DISEASES: Final = (
    Disease("covid-19", "COVID-19", _codes("207-213 217-219 221 225-230 300-302 308-313 334 500-521"), "covid"),
    Disease(
        "influenza",
        "Influenza (flu)",
        _codes(
            "15 16 88 111 125-128 135 140 141 144 149-151 153 155 158 161 166 168 171 185 186 194 197 200-202 205 231 320 331 333 337 338"
        ),
    ),
    Disease("avian-influenza", "Avian influenza", _codes("123 160 321-323")),
    Disease("measles", "Measles", _codes("03-05 94")),
    Disease("mumps", "Mumps", _codes("03 07 38 94")),
    Disease("rubella", "Rubella", _codes("03 04 06 38 94")),
    Disease("chickenpox", "Chickenpox", _codes("21 94")),
    Disease("diphtheria", "Diphtheria", _codes(_WITH_TETANUS)),
    Disease("tetanus", "Tetanus", _codes(f"{_WITH_TETANUS} 35 112 142")),
    Disease("whooping-cough", "Whooping cough", _codes("01 11 20 22 50 102 106 107 110 115 120 130 132 146 170 198")),
    Disease("polio", "Polio", _codes("02 10 89 110 120 130 132 146 170 178 179 182 195 324")),
    Disease("hib", "Haemophilus influenzae type b", _codes("17 22 46-51 102 120 132 146 148 170 198")),
    Disease("hepatitis-a", "Hepatitis A", _codes("31 52 83-85 104 193")),
    Disease("hepatitis-b", "Hepatitis B", _codes("08 42-45 51 102 104 110 132 146 189 193 198 220")),
    Disease("hpv", "Human papillomavirus (HPV)", _codes("62 118 137 165")),
    Disease("pneumococcal-disease", "Pneumococcal disease", _codes("33 100 109 133 152 177 215 216 327")),
    Disease("meningococcal-disease", "Meningococcal disease", _codes("32 103 108 114 136 147 148 162-164 167 191 192 203 316 328")),
    Disease("shingles", "Shingles", _codes("121 187 188")),
    Disease("rotavirus", "Rotavirus", _codes("74 116 119 122")),
    Disease("rsv", "Respiratory syncytial virus (RSV)", _codes("303 305 314 326")),
    Disease("smallpox-mpox", "Smallpox and mpox", _codes("75 105 206"), "orthopoxvirus"),
    Disease("yellow-fever", "Yellow fever", _codes("37 183 184")),
    Disease("typhoid-fever", "Typhoid fever", _codes("25 41 53 91 101 190")),
    Disease("rabies", "Rabies", _codes("18 40 90 175 176")),
    Disease("japanese-encephalitis", "Japanese encephalitis", _codes("39 129 134")),
    Disease("tick-borne-encephalitis", "Tick-borne encephalitis", _codes("77 222-224")),
    Disease("cholera", "Cholera", _codes("26 172-174")),
    Disease("dengue", "Dengue", _codes("56 330")),
    Disease("chikungunya", "Chikungunya", _codes("317 329")),
    Disease("ebola", "Ebola", _codes("204 214")),
    Disease("anthrax", "Anthrax", _codes("24 318 319")),
    Disease("adenovirus", "Adenovirus", _codes("54 55 82 143")),
    Disease("tuberculosis", "Tuberculosis", _codes("19")),
    Disease("plague", "Plague", _codes("23")),
    Disease("lyme-disease", "Lyme disease", _codes("66")),
    Disease("venezuelan-equine-encephalitis", "Venezuelan equine encephalitis", _codes("80 81 92")),
)


def against(codes: Iterable[str]) -> tuple[Disease, ...]:
    """The diseases against which each of these vaccines is, in the order of the table; none without a vaccine."""
    vaccines = frozenset(codes)
    return tuple(disease for disease in DISEASES if vaccines and vaccines <= disease.codes)


def codes_of(value_set: str) -> frozenset[str] | None:
    """The codes in one of VCI's value sets, by its URL without a version; None for any other.

    Those of other code systems than CVX have no codes of a card, which holds CVX codes alone.
    """
    if not value_set.startswith(f"{VALUE_SETS}immunization-"):
        return None
    family, _, system = value_set.removeprefix(f"{VALUE_SETS}immunization-").rpartition("-")
    known = {disease.value_set: disease.codes for disease in DISEASES if disease.value_set}
    codes = frozenset().union(*(disease.codes for disease in DISEASES)) if family == "all" else known.get(family)
    if codes is None or system not in ("all", "cvx", "snomed", "icd11") or (family, system) == ("all", "all"):
        return None
    return codes if system in ("all", "cvx") else frozenset()
