"""``make usability``: how much of a record each persona is shown, on the Synthea bundles; writes the table of docs/policy.md."""

from __future__ import annotations

import argparse
import asyncio
import gzip
import json
import re
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

from fhir_server.consent.decision import Actor, permits
from fhir_server.consent.labeling import Labeler, LabelSource
from fhir_server.consent.policy import ActorKind, load
from fhir_server.consent.sensitivity_codes import SensitivityCodes
from fhir_server.consent.visibility_classes import VisibilityClass
from tests.sample_data import FOLDER

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "policy.md"
SYNTHEA = FOLDER / "synthea"
PERSONAS = {
    "parent, 12 to 17": Actor(ActorKind.TEEN_PROXY),
    "proxy, standard": Actor(ActorKind.ADULT_PROXY, frozenset({"standard"})),
    "proxy, full": Actor(ActorKind.ADULT_PROXY, frozenset({"full"})),
    "adult": Actor(ActorKind.ADULT_SELF),
    "backend": Actor(ActorKind.BACKEND),
    "billing office": Actor(ActorKind.BILLING_OFFICE),
}
START, END = "<!-- make usability -->\n", "<!-- end -->"


@cache
def labeler() -> Labeler:
    return Labeler(load("optum"), SensitivityCodes.load())


def bundles(folder: Path = SYNTHEA) -> list[Path]:
    return sorted(folder.glob("*.json.gz"))


def resources(path: Path) -> list[dict[str, Any]]:
    """Return the resources of a bundle, with literal references between them."""
    text = gzip.decompress(path.read_bytes()).decode()
    names = {entry.get("fullUrl"): f"{entry['resource']['resourceType']}/{entry['resource']['id']}" for entry in json.loads(text)["entry"]}
    text = re.sub(r'"reference":\s*"([^"]*)"', lambda found: f'"reference": "{names.get(found[1], found[1])}"', text)
    return [entry["resource"] for entry in json.loads(text)["entry"]]


async def labeled(rows: list[dict[str, Any]]) -> list[tuple[dict[str, Any], VisibilityClass]]:
    """Return each resource with its visibility class."""
    known: dict[str, LabelSource] = {}
    bodies = {f"{row['resourceType']}/{row['id']}": row for row in rows}

    async def lookup(type: str, id: str) -> LabelSource | None:
        name = f"{type}/{id}"
        if name not in known and name in bodies:
            body = bodies.pop(name)
            found = await labeler().label(type, body, lookup)
            known[name] = LabelSource(found.key, found.release_at, lambda body=body: body)
        return known.get(name)

    for row in rows:
        await lookup(row["resourceType"], row["id"])
    return [(dict(source.body), source.key) for source in known.values()]


def shares(paths: list[Path]) -> dict[str, tuple[int, list[int]]]:
    """Return for each type the number of resources and the percentage that each persona is shown; directory types are left out."""
    seen: Counter[str] = Counter()
    shown: Counter[tuple[str, str]] = Counter()
    policy = labeler().policy
    for path in paths:
        for body, key in asyncio.run(labeled(resources(path))):
            if key.data == "directory":
                continue
            for name in (body["resourceType"], "all"):
                seen[name] += 1
                shown.update((name, persona) for persona, actor in PERSONAS.items() if permits(policy, actor, key))
    types = [*sorted(seen.keys() - {"all"}), "all"]
    return {type: (seen[type], [round(100 * shown[type, persona] / seen[type]) for persona in PERSONAS]) for type in types}


def written(found: dict[str, tuple[int, list[int]]]) -> str:
    lines = [f"| type | resources | {' | '.join(PERSONAS)} |", "|---" * (len(PERSONAS) + 2) + "|"]
    lines += [f"| {type} | {count} | {' | '.join(f'{share} %' for share in row)} |" for type, (count, row) in found.items()]
    return "\n".join(lines) + "\n"


def published() -> dict[str, tuple[int, list[int]]]:
    """Return the table of the documentation."""
    table = PAGE.read_text(encoding="utf-8").partition(START)[2].partition(END)[0]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]
    return {row[0]: (int(row[1]), [int(cell.removesuffix(" %")) for cell in row[2:]]) for row in cells}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=SYNTHEA, help="folder of the Synthea bundles")
    found = shares(bundles(parser.parse_args().data))
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(START)
    PAGE.write_text(before + START + written(found) + END + rest.partition(END)[2], encoding="utf-8")
    print(written(found))
