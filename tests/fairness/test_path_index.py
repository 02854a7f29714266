"""Parts of a body are found by path as by comparing every pair, with as many steps as there are results."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fhir_server.writing.path_index import PathIndex

PATHS = st.lists(st.sampled_from(["a", "b", 0, 1]), max_size=4).map(tuple)


@given(st.lists(PATHS), PATHS)
def test_the_index_finds_what_overlaps(paths: list[tuple[str | int, ...]], sought: tuple[str | int, ...]) -> None:
    found = list(PathIndex((path, number) for number, path in enumerate(paths)).overlapping(sought))
    lengths = [min(len(path), len(sought)) for path in paths]
    plain = [number for number, (path, length) in enumerate(zip(paths, lengths, strict=True)) if path[:length] == sought[:length]]
    assert sorted(found) == plain


@given(st.lists(PATHS), PATHS)
def test_of_the_longest_first_the_index_finds_the_longest_first(paths: list[tuple[str | int, ...]], sought: tuple[str | int, ...]) -> None:
    ordered = sorted(paths, key=lambda path: -len(path))
    plain = [path for path in ordered if path[: len(sought)] == sought[: len(path)]]
    assert list(PathIndex((path, path) for path in ordered).overlapping(sought))[:1] == plain[:1]


def test_many_parts_do_not_slow_down_a_look_up() -> None:
    """Counts the values that look-ups come across: one each, whatever the number of parts."""
    for count in (10, 5000):
        paths = [("hasMember", number, "reference") for number in range(count)]
        index = PathIndex((path, path) for path in paths)
        assert [value for path in paths for value in index.overlapping(path)] == paths
        assert list(index.overlapping(("hasMember", 3, "reference", "extension"))) == [paths[3]]
        assert len(list(index.overlapping(("hasMember",)))) == count
