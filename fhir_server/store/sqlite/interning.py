"""Numbers for what recurs in the tables: types, search parameters, code systems, patients, visibility classes and bands.

A number never changes and is never removed, so it can be cached.  A missing number is looked up every time, because
another process may have added it.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from typing import Any, Final, NamedTuple

import apsw

from fhir_server.store.row_order import patient_number

_MAX_CACHED: Final = 200_000
_MAX_CACHED_BANDS: Final = 2_000


class AdmittedBands(NamedTuple):
    """The bands of one type that some classes admit (:mod:`~fhir_server.store.sqlite.schema`).

    ``open``: of rows that were released when they were written.  ``held``: of rows whose release was in the future then.
    ``is_all``: these are all bands of the type.
    """

    open: array[int]
    held: array[int]
    is_all: bool

    @property
    def both(self) -> array[int]:
        """Return the open and the held bands."""
        return self.open + self.held if self.held else self.open


class Names:
    """Looks up numbers of texts and texts of numbers.

    A name's text starts with its sort: ``type:``, ``<kind>:`` of a search parameter, ``system:``, ``journal:``.  Methods
    that begin with ``intern`` add a missing number; they need a writing connection.
    """

    def __init__(self, connection: apsw.Connection, shared: Names | None = None) -> None:
        self._connection = connection
        self._numbers: dict[str, int] = shared._numbers if shared else {}
        self._texts: dict[int, str] = shared._texts if shared else {}
        self._patients: dict[str, int] = shared._patients if shared else {}
        self._owners: dict[int, tuple[str, ...]] = shared._owners if shared else {0: ()}

        self._classes: tuple[str, ...] = ()
        self._class_numbers: dict[str, int] = {}
        self._bands: dict[int, list[tuple[int, int, int]]] = {}  # by type: (number, class, held)
        self._last_band = 0
        self._admitted_bands: dict[tuple[int, frozenset[int]], AdmittedBands] = {}
        self._band_numbers: dict[tuple[int, int, bool], int] = {}

    def forget(self) -> None:
        """Clear the cache, because a number in it may have been rolled back."""
        for cache in (self._numbers, self._texts, self._patients, self._owners):
            cache.clear()
        self._owners[0] = ()
        self._classes = ()
        self._class_numbers.clear()
        self._forget_bands()
        self._band_numbers.clear()

    def _forget_bands(self) -> None:
        self._bands = {}
        self._last_band = 0
        self._admitted_bands = {}

    def number(self, text: str) -> int | None:
        """Return the number of this name; None if it has none, so that no row can contain it."""
        number = self._numbers.get(text)
        if number is None:
            number = self._connection.execute("SELECT n FROM name WHERE text = ?", (text,)).get
            if number is not None:
                self._cache_number(text, number)
        return number

    def _cache_number(self, text: str, number: int) -> None:
        if len(self._numbers) > _MAX_CACHED:
            self._numbers.clear()
        self._numbers[text] = number

    def text(self, number: int) -> str:
        """Return the name with this number."""
        text = self._texts.get(number)
        if text is None:
            if len(self._texts) > _MAX_CACHED:
                self._texts.clear()
            text = self._texts[number] = str(self._connection.execute("SELECT text FROM name WHERE n = ?", (number,)).get)
        return text

    def intern(self, text: str) -> int:
        """Return the number of this name; a new name gets the next one."""
        number = self._numbers.get(text) or self.number(text)
        if number is None:
            number = int(self._connection.execute("INSERT INTO name(text) VALUES (?) RETURNING n", (text,)).get)
            self._cache_number(text, number)
        return number

    def system(self, system: str) -> int | None:
        """Return the number of a code system; 0 for ""."""
        return self.number("system:" + system) if system else 0

    def intern_system(self, system: str) -> int:
        """Return the number of a code system, 0 for ""; a new one gets the next number."""
        return self.intern("system:" + system) if system else 0

    def system_text(self, number: int) -> str:
        """Return the code system with this number; "" for 0."""
        return self.text(number).removeprefix("system:") if number else ""

    def patient(self, id: str) -> int | None:
        """Return the number of this patient; None if the patient has none, so that no row belongs to them."""
        number = self._patients.get(id)
        if number is None:
            number = self._connection.execute("SELECT n FROM patient WHERE id = ?", (id,)).get
            if number is not None:
                if len(self._patients) > _MAX_CACHED:
                    self._patients.clear()
                self._patients[id] = number
        return number

    def patients(self, ids: Iterable[str]) -> array[int]:
        """Return the numbers of those of these patients that have one, in ascending order."""
        return array("q", sorted([number for id in ids if (number := self.patient(id)) is not None]))

    def owner(self, number: int) -> tuple[str, ...]:
        """Return the patient with this number as the ``patients`` of a Row; () for 0."""
        owner = self._owners.get(number)
        if owner is None:
            if len(self._owners) > _MAX_CACHED:
                self.forget()
            owner = self._owners[number] = (str(self._connection.execute("SELECT id FROM patient WHERE n = ?", (number,)).get),)
        return owner

    def classes(self) -> tuple[str, ...]:
        """Return the keys of all visibility classes, in the order of their ids."""
        sql = "SELECT key FROM class WHERE n >= ? ORDER BY n"
        self._classes += tuple([key for (key,) in self._connection.execute(sql, (len(self._classes),))])
        return self._classes

    def intern_class(self, key: str) -> int:
        """Return the id of the visibility class with this key; a new class gets the next id."""
        number = self._class_numbers.get(key)
        if number is None:
            number = self._connection.execute("SELECT n FROM class WHERE key = ?", (key,)).get
            if number is None:
                sql = "INSERT INTO class(n, key) VALUES ((SELECT coalesce(max(n) + 1, 0) FROM class), ?) RETURNING n"
                number = self._connection.execute(sql, (key,)).get
            self._class_numbers[key] = number = int(number)
        return number

    def admitted_bands(self, type: int, classes: frozenset[int]) -> AdmittedBands:
        """Return the bands of rows of this type whose class is one of these."""
        sql = "SELECT n, type, vclass, held FROM band WHERE n > ? ORDER BY n"
        added: list[tuple[Any, ...]] = self._connection.execute(sql, (self._last_band,)).fetchall()
        for number, of_type, class_id, is_held in added:
            self._bands.setdefault(of_type, []).append((number, class_id, is_held))
            self._last_band = number
            self._admitted_bands = {}
        admitted = self._admitted_bands.get((type, classes))
        if admitted is None:
            if len(self._admitted_bands) > _MAX_CACHED_BANDS:
                self._admitted_bands = {}
            bands = self._bands.get(type, [])
            open_, held = [array("q", [n for n, class_id, is_held in bands if is_held == kind and class_id in classes]) for kind in (0, 1)]
            admitted = AdmittedBands(open_, held, len(open_) + len(held) == len(bands))
            self._admitted_bands[type, classes] = admitted
        return admitted

    def intern_band(self, type: int, class_id: int, held: bool) -> int:
        """Return the number of the band of these rows; a new band gets the next number."""
        key = type, class_id, held
        number = self._band_numbers.get(key)
        if number is None:
            number = self._connection.execute("SELECT n FROM band WHERE type = ? AND vclass = ? AND held = ?", key).get
            if number is None:
                number = self._connection.execute("INSERT INTO band(type, vclass, held) VALUES (?, ?, ?) RETURNING n", key).get
            self._band_numbers[key] = number = int(number)
        return number

    def intern_patient(self, id: str) -> int:
        """Return the number of this patient.

        A new patient gets the number of :func:`patient_number`, or the next free one if another patient has it.
        """
        number = self.patient(id)
        if number is None:
            number = patient_number(id)
            while self._connection.execute("SELECT 1 FROM patient WHERE n = ?", (number,)).get:
                number = number % (2**31 - 1) + 1
            self._connection.execute("INSERT INTO patient(n, id) VALUES (?, ?)", (number, id))
            self._patients[id] = number
        return number
