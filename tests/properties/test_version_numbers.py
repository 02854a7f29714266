"""Numbers and times that are computed from what one version keeps are those of going through all versions."""

from __future__ import annotations

from itertools import chain, combinations
from random import Random

import msgspec
import pytest

from fhir_server.access import version_numbers
from fhir_server.access.version_numbers import Counted, Sight
from fhir_server.consent.label_sources import LendingVersion, lent_class
from fhir_server.consent.visibility_classes import MC, UNCLASSIFIED, VisibilityClass
from fhir_server.store import VersionDigest, VersionHistory
from fhir_server.store.version_history import VersionSummary, decode_history, encode_history
from fhir_server.store.version_summary import following
from tests.properties import version_oracle as oracle

_SEEDS = range(300)


def _histories(digests: tuple[VersionDigest, ...]) -> list[VersionHistory]:
    made: list[VersionHistory] = []
    for digest in digests:
        made.append(following(made[-1] if made else None, digest))
    return made


def _sights() -> list[Sight]:
    classes = [frozenset(some) for size in range(len(oracle.CLASSES) + 1) for some in combinations(oracle.CLASSES, size)]
    shown = [frozenset(some) for some in chain.from_iterable(combinations(oracle.TARGETS, size) for size in (0, 1, 3))]
    return [Sight(admitted, targets, released) for admitted in classes for targets in shown for released in (None, 45, 70, 9000)]


_SIGHTS = _sights()


def _drawn(seed: int) -> tuple[Random, tuple[VersionDigest, ...], list[VersionHistory], list[Sight]]:
    random = Random(seed)
    digests = oracle.random_history(random, random.choice((1, 2, 3, 5, 9, 30)))
    return random, digests, _histories(digests), random.sample(_SIGHTS, 60)


@pytest.mark.parametrize("seed", _SEEDS)
def test_each_caller_counts_as_if_going_through_all_versions(seed: int) -> None:
    _, digests, histories, sights = _drawn(seed)
    for sight in sights:
        for length, history in enumerate(histories, 1):
            counted = version_numbers.count(history, sight, is_visible=True)
            assert (counted.number, counted.updated) == oracle.visible_version(digests[:length], *sight[:3])
            counted = version_numbers.count(history, sight)
            assert (counted.number, counted.updated) == oracle.visible_version(digests[:length], *sight[:3], newest_counts=False)
            if counted.number:
                assert digests[counted.version - 1].updated == counted.updated
            if length > 1:
                assert version_numbers.count_earlier(history, sight) == version_numbers.count(histories[length - 2], sight)


@pytest.mark.parametrize("seed", range(120))
def test_versions_of_other_patients_are_not_counted(seed: int) -> None:
    random, digests, _, sights = _drawn(seed)
    owners: list[tuple[str, ...]] = []
    for digest in digests:
        kept = (digest.digests and random.random() < 0.4) or not owners
        owners.append(tuple(sorted(random.sample("abc", random.randint(1, 2)))) if kept else owners[-1])
    digests = tuple(msgspec.structs.replace(digest, patients=of) for digest, of in zip(digests, owners, strict=True))
    for length, history in enumerate(_histories(digests), 1):
        for patient in owners[length - 1]:
            first = 1 + max((number for number in range(length) if patient not in owners[number]), default=-1)
            assert history.first_of(frozenset({patient})) == digests[first].version
            for sight in sights[:12]:
                counted = version_numbers.count(history, sight._replace(patients=frozenset({patient})), is_visible=True)
                assert (counted.number, counted.updated) == oracle.visible_version(digests[first:length], *sight[:3])


def _indexed_time(history: VersionHistory, sight: Sight) -> int:
    """The time by which a caller finds the newest version, if the classes of guarded parts say all that the caller may know of them."""
    own = [time for time, class_id in version_numbers.last_changes(history) if class_id in sight.classes]
    return max([*own, *[time for condition, time in version_numbers.guarded_changes(history).items() if sight.meets(condition)]])


@pytest.mark.parametrize("seed", _SEEDS)
def test_each_caller_finds_a_version_by_the_time_that_it_reads(seed: int) -> None:
    _, digests, histories, sights = _drawn(seed)
    for length, history in enumerate(histories, 1):
        newest = history.digest
        for sight in sights if newest.digests else ():
            # Nobody asks before the newest version is written.
            sight = sight._replace(released=None if sight.released is None else max(sight.released, newest.updated))
            if sight.sees(newest.class_id, newest.release_at):
                found, read = _indexed_time(history, sight), oracle.visible_version(digests[:length], *sight[:3])[1]
                assert found == read or (found < read and oracle.sees_unreleased(digests[:length], *sight[:3:2]))


def test_a_version_that_another_one_replaced_before_its_release_does_not_show_in_the_time() -> None:
    text, other = ((0, "the same"),), ((1, "another"), (0, "the same"))
    for withdrawn in (VersionDigest(2, 2000, 0, 9000, text), VersionDigest(2, 2000, 1, 9000, other)):
        newest = _histories((VersionDigest(1, 1000, 0, 0, text), withdrawn, VersionDigest(3, 3000, 0, 0, text)))[-1]
        sight = Sight(frozenset({0, 1}), frozenset(), 3000)
        assert _indexed_time(newest, sight) == version_numbers.count(newest, sight).updated == 1000


def test_hidden_version_does_not_show_in_the_time_after_a_visible_one_of_another_class() -> None:
    classes = (0, 1, 2, 0)
    digests = tuple([VersionDigest(number, number * 1000, one, 0, ((one, "text"),)) for number, one in enumerate(classes, 1)])
    newest, sight = _histories(digests)[-1], Sight(frozenset({0, 1}), frozenset(), None)
    assert _indexed_time(newest, sight) == version_numbers.count(newest, sight).updated == 4000


def test_guarded_part_that_a_hidden_version_was_without_does_not_change_the_time() -> None:
    guarded = (("part", (0,), ("A/1",)),)
    digests = tuple(
        [VersionDigest(number, number * 1000, one, 0, ((one, "text"),), () if one else guarded) for number, one in enumerate((0, 1, 0), 1)]
    )
    newest, sight = _histories(digests)[-1], Sight(frozenset({0}), frozenset({"A/1"}), None)
    assert _indexed_time(newest, sight) == version_numbers.count(newest, sight).updated == 1000


@pytest.mark.parametrize("seed", range(60))
def test_what_is_lent_is_what_all_versions_lend(seed: int) -> None:
    random, digests, histories, _ = _drawn(seed)
    keys = [VisibilityClass("lab", frozenset(random.sample(("HIV", "ETH", MC, UNCLASSIFIED, "PHYHOLD"), n % 3))) for n in oracle.CLASSES]
    for length, history in enumerate(histories, 1):
        since = max((one.version for one in digests[:length] if one.declassifies), default=1)
        every = [(one.class_id, one.release_at, one.own_release_at) for one in digests[:length] if one.version >= since]
        kept = version_numbers.lending(history)
        assert version_numbers.lends_since(history) == since
        lent = [[LendingVersion(keys[class_id], *releases) for class_id, *releases in some] for some in (every, kept)]
        assert lent_class(lent[0]) == lent_class(lent[1])


def test_records_are_equal_after_they_are_stored() -> None:
    for seed in range(40):
        history = _drawn(seed)[2][-1]
        assert decode_history(encode_history(history)) == history


def test_records_of_earlier_releases_are_read_and_continued() -> None:
    """They have the time of the version that followed, none for guarded parts of a class, and those of guarded parts of all classes."""
    for seed in range(40):
        _, digests, histories, sights = _drawn(seed)
        was = histories[-1]
        if was.earlier is None:
            continue
        former = [(number, (one.digest, 7000, one.since, one.passed)) for number, one in was.earlier.latest]
        guarded = ((((0,), ("A/1",)), 7000),)
        earlier = (was.earlier.views, former, was.earlier.changes, guarded, was.earlier.lends, was.earlier.lent)
        read = decode_history(encode_history((was.digest, earlier)))
        newest = msgspec.structs.replace(digests[-1], version=len(digests) + 1, updated=10**6)
        for sight in sights:
            counts = [version_numbers.count(following(one, newest), sight, is_visible=True) for one in (was, read)]
            assert counts[0] == counts[1]
            if newest.digests and newest.class_id in sight.classes:
                assert _indexed_time(following(read, newest), sight) <= _indexed_time(following(was, newest), sight)


def _alike(versions: int) -> VersionHistory:
    history: VersionHistory | None = None
    for version in range(1, versions + 1):
        digests = ((0, f"{version:018}"), (1, f"{version % 7:018}"))
        history = following(history, VersionDigest(version, 10**15 + version, 0, 0, digests, ((f"{version:018}", (0,), ("A/1",)),)))
    assert history is not None
    return history


def test_thousandth_version_keeps_no_more_than_the_tenth() -> None:
    sizes = [len(encode_history(_alike(versions))) for versions in (10, 1000, 2000)]
    assert max(sizes) - min(sizes) < 16  # numbers take more bytes as they grow
    assert version_numbers.count(_alike(1000), Sight(frozenset({0}), frozenset(), None)) == Counted(1000, 1000, 10**15 + 1000)


def test_toggling_between_classes_keeps_the_size_bounded() -> None:
    history: VersionHistory | None = None
    sizes = []
    for version in range(1, 1001):
        history = following(history, VersionDigest(version, 10**15 + version, version % 3, 0, ((version % 3, f"{version:018}"),)))
        sizes.append(len(encode_history(history)))
    assert sizes[999] - sizes[300] < 32  # numbers take more bytes as they grow


def test_check_of_numbers_finds_a_summary_that_forgets() -> None:
    forgetful = 0
    for seed in range(40):
        _, digests, histories, sights = _drawn(seed)
        summary = histories[-1].earlier
        if summary is None or not summary.changes:
            continue
        poorer: VersionSummary = msgspec.structs.replace(summary, changes=summary.changes[:-1])
        broken = msgspec.structs.replace(histories[-1], earlier=poorer)
        counted = [version_numbers.count(broken, sight, is_visible=True) for sight in sights]
        forgetful += [one[:1] for one in counted] != [oracle.visible_version(digests, *sight[:3])[:1] for sight in sights]
    assert forgetful > 10


def test_a_version_that_is_seen_before_the_one_before_it_is_released_has_its_own_time() -> None:
    text = ((0, "the same"),)
    digests = (VersionDigest(1, 1000, 0, 5500, text), VersionDigest(2, 2000, 0, 0, text), VersionDigest(3, 3000, 0, 0, text))
    newest = _histories(digests)[-1]
    assert version_numbers.last_changes(newest) == {(2000, 0)}
    for released, number in ((3000, 1), (6000, 2), (None, 2)):
        assert version_numbers.count(newest, Sight(frozenset({0}), frozenset(), released)) == Counted(number, 2, 2000)
    passed = _histories((VersionDigest(1, 1000, 0, 1500, text), *digests[1:]))[-1]
    assert version_numbers.last_changes(passed) == {(1000, 0)}
    assert version_numbers.count(passed, Sight(frozenset({0}), frozenset(), 3000)) == Counted(1, 1, 1000)
