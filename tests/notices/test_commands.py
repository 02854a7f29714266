"""``user invite`` and ``user email``: what the office does about accounts and their e-mail addresses, on both stores."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pytest

from fhir_server.smart.accounts import account_codes, users
from fhir_server.smart.notices import contacts
from tests.maintenance.operator import STORES, Operator, new_operator
from tests.served import Served

NEW = "blue kettle four spoons"
MAIL = {"MAIL_FROM": "no-reply@demo.example"}


@pytest.fixture(params=STORES)
def operator(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Operator:
    made = new_operator(request.param, tmp_path, monkeypatch)
    made.must("create-store")
    return made


@pytest.fixture
def served(operator: Operator) -> Iterator[Served]:
    made = Served(operator.url, seeds=False)
    yield made
    made.close()


def stored(served: Served, kind: str) -> list[dict[str, str]]:
    return [json.loads(text) for _, text in served.run(served.parts.store.key_values.list_all(kind, 0))]


def test_f19_1_a_printed_code_opens_the_account(operator: Operator, served: Served) -> None:
    shown = operator.must("user", "invite", "new-patient", "--name", " Nora  New ", "--born", "1980-02-29")
    code = shown.split()[0]
    opened = served.run(account_codes.redeem(served.parts.smart, code, date(1980, 2, 29), "nora", NEW))[0]
    assert (opened.patient, opened.name, opened.role) == ("new-patient", "Nora New", "patient")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("new", "--name", "Nora", "--born", "29.2.1980"), "is not a date"),
        (("new", "--name", "Nora", "--born", "2008-11-22"), "under 18"),
        (("new", "--name", " ", "--born", "1980-02-29"), "printable characters"),
        (("adult", "--name", "Alex", "--born", "1980-02-29"), "belongs to the account 'adult'"),
        (("new", "--name", "Nora", "--born", "1980-02-29", "--email", "nora@new.example"), "sends no e-mail"),
    ],
)
def test_what_opens_no_account_is_refused(operator: Operator, served: Served, arguments: tuple[str, ...], words: str) -> None:
    shown = operator.run("user", "invite", *arguments)
    assert shown.exit_code == 1 and words in shown.output and len(shown.output.splitlines()) == 1
    assert stored(served, "account-code") == [] and stored(served, "notice") == []


def test_a_person_may_be_invited_from_the_18th_birthday_on(operator: Operator) -> None:
    operator.must("user", "invite", "new", "--name", "Nora", "--born", "2008-11-21")


def test_a_mailed_invitation_waits_for_the_server(operator: Operator, served: Served, tmp_path: Path) -> None:
    arguments = ("user", "invite", "new", "--name", "Nora", "--born", "1980-02-29", "--email")
    assert operator.run(*arguments, "nora", MAIL_FOLDER=str(tmp_path), **MAIL).exit_code == 1  # no address
    operator.must(*arguments, "nora@new.example", MAIL_FOLDER=str(tmp_path), **MAIL)
    assert [notice["address"] for notice in stored(served, "notice")] == ["nora@new.example"]
    assert stored(served, "account-code") == []  # the code is made when the message is sent


def test_the_office_sets_and_removes_the_address_of_an_account(operator: Operator, served: Served) -> None:
    def address() -> str:
        user = served.run(users.find(served.parts.store, "adult"))
        contact = served.run(contacts.find(served.parts.store, user)) if user else None
        return contact.address if contact else ""

    operator.must("user", "email", "adult", "Alex@NEW.example")
    assert address() == "Alex@new.example"
    operator.must("user", "email", "adult")
    assert address() == ""
    for arguments in (("adult", "alex"), ("nobody", "a@new.example")):
        assert operator.run("user", "email", *arguments).exit_code == 1
    assert address() == ""
