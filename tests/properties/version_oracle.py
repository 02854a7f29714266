"""How versions are counted, in the plain form: by going through the digests of all versions.  And random histories of digests."""

from __future__ import annotations

from random import Random

from fhir_server.store import VersionDigest

CLASSES = range(5)
TARGETS = ("A/1", "B/2", "C/3")


def visible_version(
    digests: tuple[VersionDigest, ...], classes: frozenset[int], shown: frozenset[str], released: int | None, *, newest_counts: bool = True
) -> tuple[int, int]:
    """The (number, time) of the newest of these versions, which the caller sees."""
    number, updated = 0, 0
    last: tuple[object, ...] = ()
    before: VersionDigest | None = None
    for position, digest in enumerate(digests):
        newest = newest_counts and position == len(digests) - 1
        if not newest and (digest.class_id not in classes or (released is not None and digest.release_at > released)):
            continue
        guarded = [part for part in digest.guarded_parts if classes.issuperset(part[1]) and shown.issuperset(part[2])]
        parts = (*(pair for pair in digest.digests if pair[0] in classes), *guarded)
        if number == 0 or parts != last or not digest.digests or _is_early(before, digest):
            number, updated = number + 1, digest.updated
        last, before = parts, digest
    return number, updated


def _is_early(before: VersionDigest | None, digest: VersionDigest) -> bool:
    """Whether a version is seen while the one before it is not released yet: then it is a change, whatever differs."""
    return before is not None and before.release_at > digest.updated and before.release_at > digest.release_at


def sees_unreleased(digests: tuple[VersionDigest, ...], classes: frozenset[int], released: int | None) -> bool:
    """Whether the caller sees a version that was not released yet when a later one was, which the caller sees, too."""
    seen = [one for one in digests if one.class_id in classes and (released is None or one.release_at <= released)]
    return any(_is_early(before, later) for number, later in enumerate(seen) for before in seen[:number])


def random_history(random: Random, length: int) -> tuple[VersionDigest, ...]:
    """Versions with few classes, releases, parts and texts, so that they often agree; some are deletions, some declassify."""
    releases = random.choice(((0,), (0, 50), (0, 40, 60, 80), (0, 60, 5500)))
    classes = random.sample(CLASSES, random.randint(1, len(CLASSES)))
    variety = random.choice((1, 2, 5))
    made: list[VersionDigest] = []
    for version in range(1, length + 1):
        updated = version * 1000
        own, release = random.choice(classes), random.choice(releases)
        if made and made[-1].digests and random.random() < 0.1:
            made.append(VersionDigest(version, updated, made[-1].class_id, made[-1].release_at, ()))
            continue
        others = [part for part in CLASSES if part != own and random.random() < 0.3]
        digests = [(own, f"own{random.randrange(variety)}"), *[(part, f"part{random.randrange(variety)}") for part in others]]
        made.append(
            VersionDigest(
                version, updated, own, release, tuple(digests), _guarded_parts(random, own, variety),
                random.random() < 0.1, release if random.random() < 0.5 else 0,
            )
        )  # fmt: skip
    return tuple(made)


def _guarded_parts(random: Random, own: int, variety: int) -> tuple[tuple[str, tuple[int, ...], tuple[str, ...]], ...]:
    conditions = set()
    for _ in range(random.choice((0, 0, 1, 3))):
        classes = random.sample((own, *CLASSES[:2]), random.randint(0, 2))
        conditions.add((tuple(sorted(classes)), tuple(sorted(random.sample(TARGETS, random.randint(1, 3))))))
    return tuple((f"guarded{random.randrange(variety)}", *condition) for condition in sorted(conditions))
