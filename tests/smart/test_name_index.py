"""The index of clients' names finds every name that looks like another one, and reads no other client."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fhir_server.smart.clients import clients, names
from fhir_server.smart.clients.clients import Client
from tests.maintenance.operator import STORES
from tests.served import Served, make_store, store_url

BACK = ("https://app.example/callback",)
WORDS = st.sampled_from(
    ["the", "The", "a", "app", "App", "apps", "Growth", "Grоwth", "Chart", "Chaᴦt", "GrowthChart", "official", "·", "rn", "m"]
)
NAMES = st.lists(WORDS, max_size=5).flatmap(lambda words: st.sampled_from([" ".join(words), "".join(words), "-".join(words)]))


@given(NAMES, NAMES)
@example("GrowthChartApp", "The Growth Chart")
@example("TheGrowthChart", "growth chart app")
@example("", "App")
def test_index_finds_every_name_that_looks_alike(name: str, taken: str) -> None:
    if names.is_lookalike(name, taken):
        assert names.similar_keys(name) & names.keys(taken)
        one, other = ({names.bare(each), names.skeleton(each)} for each in (name, taken))
        assert one & other, "the lock of parallel registrations"


@pytest.fixture(params=STORES)
def served(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Served]:
    url = store_url(request.param, tmp_path)
    make_store(url)
    made = Served(url, seeds=False)
    yield made
    made.close()


def client(id: str, name: str) -> Client:
    return Client(id, name, "app", "none", "patient/*.rs", BACK)


def similar(served: Served, name: str) -> set[str]:
    return {found.client_id for found in served.run(clients.find_similar(served.parts.store, name))}


def test_names_are_found_as_they_are_stored_changed_and_removed(served: Served) -> None:
    store = served.parts.store
    assert similar(served, "Lipid Board") == set()
    for id, name in {"one": "The Lipid Board", "two": "Other"}.items():
        served.run(clients.save(store, client(id, name)))
    assert similar(served, "Lipid Bоard App") == {"one"}
    served.run(clients.save(store, client("one", "Lipid Table")))
    assert (similar(served, "Lipid Board"), similar(served, "lipid table")) == (set(), {"one"})
    served.run(clients.save(store, client("two", "LipidTable")))
    assert similar(served, "lipid table") == {"one", "two"}
    served.run(clients.remove(store, "one", store.key_values.now()))
    assert similar(served, "lipid table") == {"two"}


def test_clients_of_an_earlier_version_are_found(served: Served) -> None:
    old = client("old", "Lipid Board")
    served.run(served.parts.store.key_values.put("client", "old", msgspec.json.encode(old), 2**62))
    assert similar(served, "The Lipid Board") == {"old"}
    assert similar(served, "Lipid Boards") == set()


def test_look_up_reads_no_other_client(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    store = served.parts.store
    for number in range(20):
        served.run(clients.save(store, client(f"c{number}", f"Number {number} of many")))
    assert similar(served, "nothing") == set()  # makes the index complete
    read, get = list[str](), store.key_values.get

    async def counted(kind: str, key: str, now: int) -> bytes | None:
        read.extend([key] if kind == "client" else [])
        return await get(kind, key, now)

    async def refused(*_: Any) -> None:
        raise AssertionError("all clients were read")

    monkeypatch.setattr(store.key_values, "get", counted)
    monkeypatch.setattr(store.key_values, "list_all", refused)
    assert similar(served, "Number 7 of many App") == {"c7"}
    assert read == ["c7"]
