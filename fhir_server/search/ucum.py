"""Converts quantities between units of UCUM that measure the same (https://ucum.org/ucum).

It reads codes by UCUM's grammar, with the atoms that clinical data use, and knows which usual codes measure the same as a given one. Two
choices are stricter than UCUM: amounts of substance, equivalents, osmoles and international units each are a dimension of their own, since
values in them cannot be compared without knowing the substance. Logarithmic units are not converted.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import cache, lru_cache
from typing import Final

UCUM: Final = "http://unitsofmeasure.org"

_PREFIXES: Final = {
    "T": 12, "G": 9, "M": 6, "k": 3, "h": 2, "da": 1, "d": -1, "c": -2, "m": -3, "u": -6, "n": -9, "p": -12, "f": -15, "a": -18,
}  # fmt: skip
# Atoms that take prefixes: how many of an expression of base units they are.  Base units are those without an expression.
_METRIC: Final = {
    "m": None, "g": None, "s": None, "K": None, "mol": None, "eq": None, "osm": None, "[IU]": None, "cd": None, "C": None, "rad": None,
    "[iU]": "1 [IU]", "L": "0.001 m3", "l": "0.001 m3", "J": "1000 g.m2/s2", "N": "1000 g.m/s2", "W": "1000 g.m2/s3", "Pa": "1000 g/m/s2",
    "bar": "100000000 g/m/s2", "m[Hg]": "133322000 g/m/s2", "m[H2O]": "9806650 g/m/s2", "cal": "4184 g.m2/s2", "[Cal]": "4184000 g.m2/s2",
    "U": "1/60000000 mol/s", "kat": "1 mol/s", "Hz": "1 /s", "Bq": "1 /s", "Ci": "37000000000 /s", "Gy": "1 m2/s2", "Sv": "1 m2/s2",
    "A": "1 C/s", "V": "1000 g.m2/s2/C", "t": "1000000 g",
}  # fmt: skip
_OTHER: Final = {
    "min": "60 s", "h": "3600 s", "d": "86400 s", "wk": "604800 s", "mo": "2629800 s", "a": "31557600 s", "%": "0.01", "[ppth]": "0.001",
    "[ppm]": "0.000001", "[ppb]": "0.000000001", "10*": "10", "10^": "10", "[in_i]": "0.0254 m", "[ft_i]": "0.3048 m", "[yd_i]": "0.9144 m",
    "[mi_i]": "1609.344 m", "[lb_av]": "453.59237 g", "[oz_av]": "28.349523125 g", "[stone_av]": "6350.29318 g", "[gr]": "0.06479891 g",
    "[gal_us]": "0.003785411784 m3", "[qt_us]": "0.000946352946 m3", "[pt_us]": "0.000473176473 m3", "[cup_us]": "0.0002365882365 m3",
    "[foz_us]": "0.0000295735295625 m3", "[tbs_us]": "0.00001478676478125 m3", "[tsp_us]": "0.00000492892159375 m3",
    "atm": "101325000 g/m/s2", "[psi]": "6894757.293168361 g/m/s2", "deg": "0.017453292519943295 rad",
}  # fmt: skip
# Code: how many kelvins one is, and where it begins.
_TEMPERATURES: Final = {"Cel": (Fraction(1), Fraction("273.15")), "[degF]": (Fraction(5, 9), Fraction("459.67") * Fraction(5, 9))}

_USUAL: Final = """
kg g mg ug ng pg fg [lb_av] [oz_av] [stone_av] [gr] t | km m cm mm um nm [in_i] [ft_i] [yd_i] [mi_i] | a mo wk d h min s ms us
L dL cL mL uL nL pL fL l dl ml ul m3 dm3 cm3 mm3 [gal_us] [qt_us] [pt_us] [cup_us] [foz_us] [tbs_us] [tsp_us] | m2 cm2 mm2 | Cel [degF] K
mm[Hg] cm[H2O] mm[H2O] kPa Pa hPa bar mbar atm [psi] | J kJ cal kcal [Cal] | mol mmol umol nmol pmol fmol
mol/L mmol/L umol/L nmol/L pmol/L fmol/L mmol/dL umol/dL nmol/dL mmol/mL umol/mL nmol/mL pmol/mL mol/m3 mmol/l umol/l
g/L mg/L ug/L ng/L pg/L g/dL mg/dL ug/dL ng/dL pg/dL g/mL mg/mL ug/mL ng/mL pg/mL kg/L kg/m3 mg/dl g/dl g/l mg/l
eq meq ueq | eq/L meq/L ueq/L meq/dL meq/mL | osm/kg mosm/kg | osm/L mosm/L
[IU] k[IU] m[IU] u[IU] [iU] | [IU]/L k[IU]/L m[IU]/L u[IU]/L [IU]/dL [IU]/mL k[IU]/mL m[IU]/mL u[IU]/mL [iU]/L m[iU]/L [iU]/mL u[iU]/mL
U kU mU kat | U/L kU/L mU/L U/mL mU/mL U/dL kat/L ukat/L nkat/L
/L /mL /uL /mm3 10*3/uL 10*6/uL 10*9/L 10*12/L 10*6/L 10*3/L 10*3/mL 10*6/mL 10*9/mL 10*3/mm3 10*6/mm3 {cells}/uL {cells}/L
/min /s /h /d Hz {beats}/min {breaths}/min {counts}/min Bq kBq MBq GBq Ci mCi uCi
L/min mL/min L/h mL/h L/s mL/s L/d mL/d | mL/min/{1.73_m2} | mg/kg ug/kg g/kg ng/kg % 1 {score} {ratio} [ppm] mg/g g/g ug/g ug/mg ng/mg
mmol/mol umol/mol mol/mol | mmol/g umol/g nmol/g mol/kg mmol/kg umol/kg | g/mol mg/mmol ug/mmol mg/mol
mg/kg/h ug/kg/min ug/kg/h mg/kg/d ng/kg/min
g/d mg/d ug/d g/h mg/h ug/h mg/min ug/min | mmol/d umol/d mmol/h | [IU]/h [IU]/d | [IU]/kg | kg/m2 g/m2 mg/m2 g/cm2 | m/s cm/s [mi_i]/h
V mV uV | A mA | Gy cGy mGy Sv mSv uSv | deg rad | kcal/d kJ/d | mm/h | L/m2 mL/m2 | L/min/m2 | mm[Hg]/mL/min
"""

_TOKEN: Final = re.compile(
    r"(?P<note>\{[^{}]*\})|(?P<atom>10[*^]|%|[A-Za-z]*\[[A-Za-z0-9_]+\]|[A-Za-z]+)(?P<power>[+-]?\d+)?|(?P<number>\d+)|(?P<sign>[./()])"
)

Dimensions = tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class Unit:
    """``factor * value + offset`` base units of ``dimensions`` are a value in this unit."""

    factor: Fraction
    dimensions: Dimensions
    offset: Fraction = Fraction(0)


@lru_cache(4096)
def unit(code: str) -> Unit | None:
    """The unit of a code; None if the code is not one, or has an atom that is not known here."""
    if code in _TEMPERATURES:
        factor, offset = _TEMPERATURES[code]
        return Unit(factor, (("K", 1),), offset)
    try:
        factor, powers = _Reader(code).whole()
    except ValueError:
        return None
    return Unit(factor, tuple(sorted((name, power) for name, power in powers.items() if power)))


def comparable(code: str) -> tuple[tuple[str, Unit], ...]:
    """The usual codes that measure the same as this one, and itself, with their units; none if the code is not known."""
    own = unit(code)
    if own is None:
        return ()
    usual = _usual().get(own.dimensions, ())
    return usual if any(known == code for known, _ in usual) else (*usual, (code, own))


def converted(value: float, of: Unit, to: Unit) -> float:
    """The value in another unit of the same dimensions, exact but for the last rounding.  Raises OverflowError."""
    return float((Fraction(repr(value)) * of.factor + of.offset - to.offset) / to.factor)


@cache
def _usual() -> Mapping[Dimensions, tuple[tuple[str, Unit], ...]]:
    found: dict[Dimensions, tuple[tuple[str, Unit], ...]] = {}
    for code in _USUAL.replace("|", " ").split():
        known = unit(code)
        if known is None:
            raise ValueError(f"{code} is no unit")
        found[known.dimensions] = (*found.get(known.dimensions, ()), (code, known))
    return found


_Powers = dict[str, int]


class _Reader:
    """Reads one code.  Methods raise ValueError for anything else."""

    def __init__(self, code: str) -> None:
        self._tokens: list[re.Match[str]] = []
        position = 0
        while position < len(code):
            token = _TOKEN.match(code, position)
            if token is None or len(self._tokens) > 40:
                raise ValueError(code)
            self._tokens.append(token)
            position = token.end()

    def whole(self) -> tuple[Fraction, _Powers]:
        found = self._term(0)
        if self._tokens:
            raise ValueError("more follows")
        return found

    def _term(self, depth: int) -> tuple[Fraction, _Powers]:
        if depth > 5:
            raise ValueError("too deep")
        sign = -1 if self._take("/") else 1
        factor, powers = Fraction(1), _Powers()
        while True:
            part, of_part = self._component(depth)
            factor *= part**sign
            for name, power in of_part.items():
                powers[name] = powers.get(name, 0) + sign * power
            if self._take("."):
                sign = 1
            elif self._take("/"):
                sign = -1
            else:
                return factor, powers

    def _take(self, sign: str) -> bool:
        if self._tokens and self._tokens[0]["sign"] == sign:
            self._tokens.pop(0)
            return True
        return False

    def _component(self, depth: int) -> tuple[Fraction, _Powers]:
        if self._take("("):
            found = self._term(depth + 1)
            if not self._take(")"):
                raise ValueError("no end")
            return found
        if not self._tokens or self._tokens[0]["sign"]:
            raise ValueError("no unit")
        token = self._tokens.pop(0)
        if token["note"]:
            return Fraction(1), {}
        factor, powers = (Fraction(token["number"]), {}) if token["number"] else _powered(token["atom"], int(token["power"] or 1))
        if self._tokens and self._tokens[0]["note"]:
            self._tokens.pop(0)
        return factor, powers


def _powered(symbol: str, power: int) -> tuple[Fraction, _Powers]:
    if abs(power) > 30:
        raise ValueError("too great")
    factor, powers = _atom(symbol)
    return factor**power, {name: one * power for name, one in powers.items()}


@cache
def _known() -> Mapping[str, tuple[Fraction, _Powers]]:
    found: dict[str, tuple[Fraction, _Powers]] = {name: (Fraction(1), {name: 1}) for name, text in _METRIC.items() if text is None}
    for name, text in (*_METRIC.items(), *_OTHER.items()):
        if text is not None:
            number, _, code = text.partition(" ")
            factor, powers = _base(code)
            found[name] = Fraction(number) * factor, powers
    return found


def _base(code: str) -> tuple[Fraction, _Powers]:
    """An expression of base units, such as ``g.m2/s2``."""
    powers: _Powers = {}
    for sign, symbol, power in re.findall(r"([./]?)([A-Za-z]+|\[IU\])(\d*)", code):
        powers[symbol] = powers.get(symbol, 0) + (-1 if sign == "/" else 1) * int(power or 1)
    return Fraction(1), powers


def _atom(symbol: str) -> tuple[Fraction, _Powers]:
    known = _known()
    if symbol in known:
        return known[symbol]
    for length in (1, 2):
        prefix, rest = symbol[:length], symbol[length:]
        if prefix in _PREFIXES and rest in _METRIC:
            factor, powers = known[rest]
            return Fraction(10) ** _PREFIXES[prefix] * factor, powers
    raise ValueError(symbol)
