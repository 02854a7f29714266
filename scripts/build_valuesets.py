"""Build ``ig/valuesets/``, ``ig/codesystems/`` and ``ig/words.json`` from the tables in ``ig/sources/``.

One ValueSet for each sensitive category (and one of the codes that need a second signal), for each group of
sensitive departments, for each topic of known ordinary codes, and for codes that say nothing by themselves.  ICD-10-CM
rows are prefixes: they become filters ``concept is-a <prefix>``.  Ranges of HCPCS codes become filters ``code regex``.
``sources/unconfirmed`` is left out.  The output is deterministic; a test builds it again and compares.

    python scripts/build_valuesets.py [--ig DIR]
"""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from fhir_server.consent.value_set_parts import SYSTEMS, includes

Json = dict[str, Any]
Rows = list[dict[str, str]]

BASE = "https://fhir-server.example/ig"
IG = Path(__file__).parents[1] / "ig"
DATE = "2026-11-21"
CATEGORY = f"{BASE}/CodeSystem/sensitive-category"
NOTICES = {
    "LOINC": "This material contains content from LOINC (http://loinc.org). LOINC is copyright Regenstrief Institute, Inc. and "
    "the LOINC Committee and is available at no cost under the license at http://loinc.org/license.",
    "RxNorm": "RxNorm: publicly available data courtesy of the U.S. National Library of Medicine.",
    "SNOMED": "SNOMED CT codes without descriptions; use of SNOMED CT needs an affiliate license.",
}
DEPARTMENTS = {
    "mental-health": "MH", "drug-alcohol": "SUD", "sexual-abuse": "SEXAB", "reproductive": "REPRO", "genetic": "GENETIC",
}  # fmt: skip
CODE_SYSTEMS: dict[str, tuple[str, dict[str, str]]] = {
    "sensitive-category": ("Labels of sensitive content", {
        "HIV": "HIV tests, diagnoses, treatment and prevention", "STD": "Sexually transmitted infections",
        "DRUGTEST": "Drug and toxicology tests", "PAP": "Cervical cytology and HPV tests",
        "PREG": "Pregnancy and pregnancy tests",
        "MH": "Mental health", "SUD": "Substance use", "SEXAB": "Sexual abuse, assault and intimate partner violence",
        "REPRO": "Contraception, fertility, abortion and gender care", "GENETIC": "Genetic tests and carrier states",
        "MC": "Care to which a minor consented alone",
        "PHYHOLD": "Withheld from the patient side at a clinician's request", "UNCLASSIFIED": "Without a known code",
    }),
    "consent-kind": ("What a Consent of this server is for", {
        "proxy-child": "Access of a parent or guardian to a child's record",
        "proxy-adult": "Access an adult grants to another adult",
        "restriction": "A restriction of access",
    }),
    "proxy-level": ("How much an adult grant opens", {
        "standard": "Everything but sensitive content and notes", "full": "As the patient",
        "scheduling": "Ordinary visits and their booking", "billing": "Bills and coverage",
    }),
    "reported-by": ("Who says what a resource says, if it is not the institution", {
        "patient-reported": "The patient said so, through an app or a page",
        "proxy-reported": "A person who acts for the patient said so, through an app or a page",
    }),
    "label-change": ("Changes of the labels of a resource, in the audit log", {
        "add-labels": "Security labels, tags or profiles were added", "remove-labels": "Security labels, tags or profiles were removed",
    }),
    "audit-act": ("Security events of pages, OAuth endpoints, server processes and operators, apart from signing in and out", {
        "allow-app": "A person decided whether to allow an app access", "end-app": "A person ended an app's access",
        "open-app": "A clinician launched an app from a chart", "token": "A client asked for tokens", "revoke": "A client revoked a token",
        "register-app": "An app was registered", "change-app": "A registration was changed", "remove-app": "A registration was removed",
        "share-record": "A patient shared the record", "end-sharing": "A patient ended a shared access",
        "new-code": "A patient created a new activation code", "use-code": "A person used an activation code",
        "link-account": "A person linked an account at another health system", "unlink-account": "A person unlinked such an account",
        "operator-token": "The operator issued an access token", "add-user": "The operator or a system created an account",
        "remove-user": "The operator or a system removed an account",
        "change-account": "A person, the operator or a system changed an account or its credentials, or ended its sessions",
        "merge-users": "The operator merged two accounts of one person",
        "read-users": "A system for the administration of accounts read accounts",
        "link-subject": "The operator linked a person at an identity provider to an account",
        "unlink-subject": "The operator removed such a link",
        "add-provider": "The operator registered an identity provider",
        "remove-provider": "The operator removed an identity provider",
        "trust-publisher": "The operator trusted a publisher of software statements",
        "distrust-publisher": "The operator stopped trusting a publisher",
        "invite-developer": "The operator issued a registration token for a developer",
        "add-organisation": "The operator registered another health system for linked accounts",
        "remove-organisation": "The operator removed another health system and the links to it",
        "rotate-keys": "The operator rotated the signing keys",
        "import-codes": "The operator imported a list of sensitive and ordinary codes",
        "create-store": "The operator made the store",
        "start-server": "A server process started",
        "stop-server": "A server process stopped",
        "load": "The operator loaded files into the store",
        "export": "The operator exported the whole store",
        "relabel": "The operator labeled all resources again",
        "copy-store": "The operator copied the whole store",
        "read-audit": "The operator printed the audit log",
        "restart-audit": "The operator began a new chain of the audit log",
        "backup": "The operator made a backup of the store",
        "restore": "The operator restored the store from a backup",
        "reseal-keys": "The operator encrypted the secrets in the store with a new secret key",
        "erase-record": "The operator erased a patient's record",
        "purge-audit": "The first lines of the audit log were purged",
        "purge-history": "Earlier versions of resources were purged",
        "change-operation": "The operator made the server read-only, closed it for maintenance, or opened it",
        "end-all-access": "The operator ended all access of everybody, of a person or of an app",
        "reload": "A server process took over a changed policy and changed code lists, or refused them",
        "add-package": "The operator added a package of definitions", "remove-package": "The operator removed such a package",
    }),
}  # fmt: skip


def main() -> None:
    """Command line entry."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--ig", type=Path, default=IG, help="folder that holds sources/ and receives the resources")
    ig = parser.parse_args().ig
    for path, text in build(ig / "sources"):
        target = ig / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
        print(target)


def build(sources: Path) -> Iterator[tuple[str, str]]:
    """Every file, as (path below ``ig/``, JSON text).  Raises ValueError for a row that names an unknown code system."""
    for path in sorted((sources / "sensitive").glob("*.csv")):
        label, table = path.stem.upper(), rows(path)
        yield _file(_value_set(f"sensitive-{path.stem}", (r for r in table if r["tier"] == "D"), label))
        if second := [row for row in table if row["tier"] == "C"]:
            yield _file(_value_set(f"sensitive-{path.stem}-second-signal", second, label))
    for path in sorted((sources / "departments").glob("*.csv")):
        yield _file(_value_set(f"department-{path.stem}", rows(path), DEPARTMENTS[path.stem]))
    for path in sorted((sources / "ordinary").glob("*.csv")):
        yield _file(_value_set(f"ordinary-{path.stem}", rows(path)))
    for path in sorted((sources / "neutral").glob("*.csv")):
        yield _file(_value_set(f"neutral-{path.stem}", rows(path)))
    for name, (title, codes) in CODE_SYSTEMS.items():
        yield _file(_code_system(name, title, codes))
    yield "words.json", words(rows(sources / "words.csv"))


def rows(path: Path) -> Rows:
    """The rows of one source table."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def words(table: Rows) -> str:
    """The word lists as JSON, one term in a line: ``alone`` is false for a term that needs a second signal."""
    lines = []
    for row in table:
        entry: Json = {"term": row["term"], "label": row["label"]}
        if row["use"] == "signal":
            entry["alone"] = False
        if row["unless"]:
            entry["unless"] = [phrase.strip() for phrase in row["unless"].split(";")]
        lines.append(json.dumps(entry, ensure_ascii=False))
    return "[\n" + ",\n".join(lines) + "\n]\n"


def _value_set(name: str, table: Iterable[dict[str, str]], label: str = "") -> Json:
    table = list(table)
    short = sorted({row["system"] for row in table})
    resource: Json = {
        "resourceType": "ValueSet", "id": name,
        "url": f"{BASE}/ValueSet/{name}", "version": DATE, "name": "".join(part.title() for part in name.split("-")),
        "title": name.replace("-", " ").capitalize(), "status": "active", "experimental": False, "date": DATE,
        "useContext": [{
            "code": {"system": "http://terminology.hl7.org/CodeSystem/usage-context-type", "code": "focus"},
            "valueCodeableConcept": {"coding": [{"system": CATEGORY, "code": label}]},
        }] if label else [],
        "copyright": " ".join(NOTICES[system] for system in short if system in NOTICES),
        "compose": {"include": [part for system in short for part in _includes(system, table)]},
    }  # fmt: skip
    return {key: value for key, value in resource.items() if value != [] and value != ""}


def _includes(name: str, whole: Rows) -> Iterator[Json]:
    if name not in SYSTEMS:
        raise ValueError(f"unknown code system {name!r} in ig/sources")
    return includes(SYSTEMS[name], [row for row in whole if row["system"] == name])


def _code_system(name: str, title: str, codes: dict[str, str]) -> Json:
    return {
        "resourceType": "CodeSystem", "id": name, "url": f"{BASE}/CodeSystem/{name}", "version": DATE,
        "name": "".join(part.title() for part in name.split("-")), "title": title,
        "status": "active", "experimental": False, "date": DATE,
        "caseSensitive": True, "content": "complete", "count": len(codes),
        "concept": [{"code": code, "display": display} for code, display in codes.items()],
    }  # fmt: skip


def _file(resource: Json) -> tuple[str, str]:
    folder = "valuesets" if resource["resourceType"] == "ValueSet" else "codesystems"
    return f"{folder}/{resource['id']}.json", json.dumps(resource, indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    main()
