"""Which rows of the SQLite store refer to which, for relabeling: names alone, of current and of past versions."""

from __future__ import annotations

from array import array
from collections.abc import Collection
from typing import Any, Final

import apsw

from fhir_server.store.sqlite.reader import SqliteSnapshot

# A negative rid is minus the number of a past version.
_REFERRERS: Final = (
    "WITH found(rid) AS MATERIALIZED (SELECT DISTINCT x.rid FROM carray(?1) t CROSS JOIN ref x WHERE x.target = t.value),"
    " named(name, rid) AS MATERIALIZED ("
    " SELECT substr(t.text, 6) || '/' || r.id, r.rid FROM found f CROSS JOIN res r CROSS JOIN name t WHERE r.rid = f.rid AND t.n = r.type"
    " UNION ALL"
    " SELECT substr(t.text, 6) || '/' || p.id, p.rid FROM found f CROSS JOIN past p CROSS JOIN name t"
    " WHERE f.rid < 0 AND p.n = -f.rid AND t.n = p.type)"
    " SELECT n.name, max(n.rid >> 32), group_concat(o.id, ' ') FROM named n LEFT JOIN also a ON a.rid = n.rid"
    " LEFT JOIN patient o ON o.n = a.patient"
    " WHERE n.name > ?2 GROUP BY n.name ORDER BY n.name LIMIT ?3"
)
_PATIENTS: Final = "SELECT n, id FROM patient WHERE n IN (SELECT value FROM carray(?))"
_REFERRED: Final = (
    "SELECT DISTINCT x.target FROM carray(?1) i CROSS JOIN res r CROSS JOIN ref x"
    " WHERE r.type = ?2 AND r.id = i.value AND x.rid = r.rid AND x.param IN (SELECT value FROM carray(?3))"
    " UNION SELECT x.target FROM carray(?1) i CROSS JOIN past p CROSS JOIN ref x"
    " WHERE p.type = ?2 AND p.id = i.value AND x.rid = -p.n AND x.param IN (SELECT value FROM carray(?3))"
)


def referrer_names(snapshot: SqliteSnapshot, targets: Collection[str], after: str, limit: int | None) -> dict[str, tuple[str, ...]]:
    """See :meth:`fhir_server.store.Transaction.referrer_names_unfiltered`."""
    args = apsw.carray(tuple(sorted(targets))), after, -1 if limit is None else limit
    rows: list[Any] = snapshot.connection.execute(_REFERRERS, args).fetchall()
    numbers = sorted({number for _, number, _ in rows})
    known: list[Any] = snapshot.connection.execute(_PATIENTS, (apsw.carray(array("q", numbers)),)).fetchall() if numbers else []
    patients: dict[int, str] = dict(known)
    return {
        name: tuple(dict.fromkeys([*([patients[number]] if number in patients else []), *(others or "").split()]))
        for name, number, others in rows
    }


def referred_names(snapshot: SqliteSnapshot, names: Collection[str], params: frozenset[str]) -> frozenset[str]:
    """See :meth:`fhir_server.store.Transaction.referred_names_unfiltered`."""
    found: set[str] = set()
    for type in sorted({name.partition("/")[0] for name in names}):
        numbers = [snapshot.names.number(f"reference:{param}") for param in sorted(params) if param.startswith(f"{type}.")]
        ids = sorted(name.partition("/")[2] for name in names if name.startswith(f"{type}/"))
        known = [number for number in numbers if number is not None]
        if known:
            args = apsw.carray(tuple(ids)), snapshot.names.number(f"type:{type}"), apsw.carray(array("q", known))
            found.update([str(target) for (target,) in snapshot.connection.execute(_REFERRED, args)])
    return frozenset(found)
