"""Every end of a session or an account puts the clients of its sessions into the queue of logout tokens, on both stores."""

from __future__ import annotations

import ast
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from fhir_server.maintenance import end_access
from fhir_server.smart.accounts import identity_providers, merging, sessions, users
from fhir_server.smart.accounts.identity_providers import Provider
from fhir_server.smart.core import logout_queue
from fhir_server.smart.core.context import digest
from fhir_server.smart.core.logout_queue import SignedIn
from tests.maintenance.operator import STORES, Operator, new_operator
from tests.scim.environment import Administration
from tests.served import ROOT, Served

PASSWORD = "A-long-pass-2026"
ISSUER = "https://idp.example"


class Office:
    """A server on a store of its own, and the operator of that store."""

    def __init__(self, operator: Operator, served: Served) -> None:
        self.operator, self.served = operator, served
        self.store, self.smart = served.parts.store, served.parts.smart

    def person(self, name: str) -> str:
        """Create an account and return its user name."""
        self.served.run(users.create(self.store, name, PASSWORD, "patient"))
        return name

    def sign_in(self, *names: str) -> None:
        """Start a session of each account, with an app that wants to know of its end."""
        for name in names:
            self.served.run(self._sign_in(name))

    async def _sign_in(self, name: str) -> None:
        user = await users.find(self.store, name)
        assert user is not None
        key = digest(await sessions.start(self.smart, user, authenticated=self.smart.now()))
        signed_in = SignedIn("demo-public", user.subject, logout_queue.session_id(key, "demo-public"), name)
        await logout_queue.add(self.store, key, signed_in, self.smart.now())

    def told(self) -> list[str]:
        """The user names of the sessions of whose end apps will be told."""
        found = self.served.run(logout_queue.due_notices(self.store, self.smart.now(), 100))
        return sorted(notice.signed_in.username for notice in found)


@pytest.fixture(params=STORES)
def operator(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Operator:
    monkeypatch.setattr(end_access, "_PAUSE", 0.0)
    operator = new_operator(request.param, tmp_path, monkeypatch)
    operator.must("create-store")
    return operator


@pytest.fixture
def office(operator: Operator) -> Iterator[Office]:
    made = Office(operator, Served(operator.url, seeds=False))
    yield made
    made.served.close()


COMMANDS = (
    ("user", "sign-out", "{name}"),
    ("user", "lock", "{name}"),
    ("user", "rename", "{name}", "former-{name}"),
    ("user", "set-role", "{name}", "billing"),
    ("user", "reset-second-factor", "{name}"),
    ("user", "link", "{name}", "--patient", "of-{name}"),
    ("user", "remove", "{name}"),
    ("end-access", "--user", "{name}", "--reason", "test"),
)


def test_command_that_ends_sessions_tells_their_clients(office: Office) -> None:
    office.sign_in("clinician")
    for number, command in enumerate(COMMANDS):
        name = office.person(f"person-{number}")
        office.sign_in(name)
        assert name not in office.told()
        office.operator.must(*(part.format(name=name) for part in command))
        assert name in office.told(), command
    assert "clinician" not in office.told()


@pytest.mark.parametrize("command", [("user", "sign-out", "--everyone"), ("end-access", "--everyone", "--reason", "test")])
def test_command_that_ends_everybodys_sessions_tells_all_clients(office: Office, command: tuple[str, ...]) -> None:
    office.sign_in("adult", "clinician")
    office.operator.must(*command)
    assert office.told() == ["adult", "clinician"]


async def _set_password(office: Office, name: str) -> None:
    user = await users.find(office.store, name)
    assert user is not None
    await users.set_password(office.store, user, PASSWORD, office.smart.passwords, office.smart.now())


async def _unlink_provider(office: Office, name: str) -> None:
    await identity_providers.add(office.smart, Provider(ISSUER, "Provider", "client", "client_secret"), "s" * 32)
    await identity_providers.link(office.store, ISSUER, "sub", name)
    await identity_providers.remove(office.store, ISSUER)


async def _merge(office: Office, name: str) -> None:
    await users.create(office.store, "kept", PASSWORD, "patient")
    await merging.merge(office.store, "kept", name, office.smart.now())


async def _merge_into(office: Office, name: str) -> None:
    await users.create(office.store, "ended", PASSWORD, "patient")
    await merging.merge(office.store, name, "ended", office.smart.now())


def test_change_that_ends_sessions_tells_their_clients(office: Office) -> None:
    office.sign_in("clinician")
    changes: tuple[Callable[[Office, str], Awaitable[None]], ...] = (_set_password, _unlink_provider, _merge, _merge_into)
    for number, change in enumerate(changes):
        name = office.person(f"person-{number}")
        office.sign_in(name)
        office.served.run(change(office, name))
        assert name in office.told(), change
    assert "clinician" not in office.told()


def test_deprovisioning_by_scim_tells_the_clients_of_a_member_of_staff(operator: Operator) -> None:
    administration = Administration(operator.url, seeds=False)
    office = Office(operator, administration.served)
    values: dict[str, tuple[str, object]] = {"active": ("active", False), "password": ("password", PASSWORD), "name": ("userName", "x")}
    for name, (path, value) in values.items():
        id = administration.id(office.person(f"by-{name}"))
        office.sign_in(f"by-{name}")
        assert administration.patch(id, {"op": "replace", "path": path, "value": value}).status in (200, 204)
        assert f"by-{name}" in office.told()
    office.sign_in("clinician")
    assert administration.request("DELETE", f"/Users/{administration.id('clinician')}").status == 204
    assert "clinician" in office.told()
    administration.close()


def test_sessions_end_in_one_place_only() -> None:
    """So that none ends without its clients.  Only there the records of a session are removed."""
    own = ROOT / "fhir_server" / "smart" / "core" / "session_ends.py"
    assert removals(own.read_text(encoding="utf-8")) == 3, "the search finds removals"
    found = {path.name: removals(path.read_text(encoding="utf-8")) for path in (ROOT / "fhir_server").rglob("*.py") if path != own}
    assert {name for name, count in found.items() if count} == set()


def removals(source: str) -> int:
    """How many calls of a module remove records of sessions: by family, or one by one."""
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)]
    named = [(call.func.attr, ast.unparse(call)) for call in calls if isinstance(call.func, ast.Attribute)]
    of_family = [text for name, text in named if name == "delete_family" and ("account_family(username)" in text or "family(key)" in text)]
    loops = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.For) and "SESSION" in ast.unparse(node.iter)]
    return len(of_family) + sum(".pop(" in ast.unparse(loop) for loop in loops)
