"""Numbers for the texts that recur: types, parameters, systems and patients, remembered per connection owner.

What is written there is never changed nor removed, so a remembered number stays right; what is missing is
looked up each time, since another process may have added it.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from typing import Final

import apsw

from fhir_server.store.row_order import patient_number

_REMEMBERED: Final = 200_000


class Names:
    """Two-way look-up.  A name's text starts with its sort: ``type:``, ``<kind>:`` of a parameter, ``system:``."""

    def __init__(self, connection: apsw.Connection, shared: Names | None = None) -> None:
        self._connection = connection
        self._numbers: dict[str, int] = shared._numbers if shared else {}
        self._texts: dict[int, str] = shared._texts if shared else {}
        self._patients: dict[str, int] = shared._patients if shared else {}
        self._owners: dict[int, tuple[str, ...]] = shared._owners if shared else {0: ()}

        self._classes: tuple[str, ...] = ()
        self._class_numbers: dict[str, int] = {}

    def forget(self) -> None:
        """Forget what may have been rolled back."""
        for known in (self._numbers, self._texts, self._patients, self._owners):
            known.clear()
        self._owners[0] = ()
        self._classes = ()
        self._class_numbers.clear()

    def number(self, text: str) -> int | None:
        """The number of this name, or None if it has none, so that no row has it either."""
        known = self._numbers.get(text)
        if known is None:
            known = self._connection.execute("SELECT n FROM name WHERE text = ?", (text,)).get
            if known is not None:
                self._remember(text, known)
        return known

    def _remember(self, text: str, number: int) -> None:
        if len(self._numbers) > _REMEMBERED:
            self._numbers.clear()
        self._numbers[text] = number

    def text(self, number: int) -> str:
        known = self._texts.get(number)
        if known is None:
            if len(self._texts) > _REMEMBERED:
                self._texts.clear()
            known = self._texts[number] = str(self._connection.execute("SELECT text FROM name WHERE n = ?", (number,)).get)
        return known

    def intern(self, text: str) -> int:
        """The number of this name, given one if it is new (on a writing connection)."""
        known = self._numbers.get(text) or self.number(text)
        if known is None:
            known = int(self._connection.execute("INSERT INTO name(text) VALUES (?) RETURNING n", (text,)).get)
            self._remember(text, known)
        return known

    def system(self, system: str) -> int | None:
        return self.number("system:" + system) if system else 0

    def intern_system(self, system: str) -> int:
        return self.intern("system:" + system) if system else 0

    def system_text(self, number: int) -> str:
        return self.text(number).removeprefix("system:") if number else ""

    def patient(self, id: str) -> int | None:
        known = self._patients.get(id)
        if known is None:
            known = self._connection.execute("SELECT n FROM patient WHERE id = ?", (id,)).get
            if known is not None:
                if len(self._patients) > _REMEMBERED:
                    self._patients.clear()
                self._patients[id] = known
        return known

    def patients(self, ids: Iterable[str]) -> array[int]:
        """The numbers of those of these patients that have one, in order."""
        return array("q", sorted([number for id in ids if (number := self.patient(id)) is not None]))

    def owner(self, number: int) -> tuple[str, ...]:
        """The patient of this number, as a Row has it; 0 is nobody."""
        known = self._owners.get(number)
        if known is None:
            if len(self._owners) > _REMEMBERED:
                self.forget()
            known = self._owners[number] = (str(self._connection.execute("SELECT id FROM patient WHERE n = ?", (number,)).get),)
        return known

    def classes(self) -> tuple[str, ...]:
        """Every visibility class's key, in the order of their numbers."""
        sql = "SELECT key FROM class WHERE n >= ? ORDER BY n"
        self._classes += tuple([key for (key,) in self._connection.execute(sql, (len(self._classes),))])
        return self._classes

    def intern_class(self, key: str) -> int:
        """The number of this visibility class; a new one is given the next (on a writing connection)."""
        known = self._class_numbers.get(key)
        if known is None:
            known = self._connection.execute("SELECT n FROM class WHERE key = ?", (key,)).get
            if known is None:
                sql = "INSERT INTO class(n, key) VALUES ((SELECT coalesce(max(n) + 1, 0) FROM class), ?) RETURNING n"
                known = self._connection.execute(sql, (key,)).get
            self._class_numbers[key] = known = int(known)
        return known

    def intern_patient(self, id: str) -> int:
        """The number of this patient; of two whose digests meet, the later takes the next free number."""
        known = self.patient(id)
        if known is None:
            known = patient_number(id)
            while self._connection.execute("SELECT 1 FROM patient WHERE n = ?", (known,)).get:
                known = known % (2**31 - 1) + 1
            self._connection.execute("INSERT INTO patient(n, id) VALUES (?, ?)", (known, id))
            self._patients[id] = known
        return known
