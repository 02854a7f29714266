"""``fhir-server user``: each change takes effect at once for a server that has already answered, on both stores."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from fhir_server.clock import MAX_INSTANT
from fhir_server.smart.accounts import identity_providers, password_sign_in, sessions, users
from fhir_server.smart.accounts.attempts import AttemptLimit
from fhir_server.smart.accounts.users import User
from fhir_server.smart.core.token_grants import TokenGrant, active_grants
from fhir_server.smart.tokens import tokens
from tests.maintenance.operator import STORES, Operator, new_operator
from tests.seeded import seeded
from tests.served import NOON, micros

PASSWORD = "A-long-pass-2026"
NOW = micros(NOON)
CHILD, TEEN = "parent-a-of-child", "parent-a-of-teen"


class Office:
    """A running server on the demo records, and the operator of its store."""

    def __init__(self, operator: Operator) -> None:
        self.operator = operator
        self.served = seeded(operator.url)
        self.store, self.smart = self.served.parts.store, self.served.parts.smart

    def user(self, name: str) -> User:
        found = self.served.run(users.find(self.store, name))
        assert found is not None, name
        return found

    def token(self, name: str, patient: str | None = None, scope: str = "patient/*.rs", fhir_user: str | None = None) -> str:
        """A token with a refresh token, as an app of the person has it."""
        grant = TokenGrant(
            "demo-public", scope, f"{name} {patient} {fhir_user}", name, patient, None, fhir_user, generation=self.user(name).generation
        )
        return self.served.run(tokens.issue(self.store, grant, NOW, refresh=scope)).access

    def session(self, name: str) -> str:
        return self.served.run(sessions.start(self.smart, self.user(name), authenticated=self.smart.now()))

    def is_signed_in(self, cookie: str) -> bool:
        return self.served.run(sessions.current(self.smart, cookie)) is not None

    def status(self, token: str, path: str) -> int:
        return self.served.get(token, path).status

    def families(self, name: str) -> set[str]:
        return {grant.family for grant in self.served.run(active_grants(self.store, NOW)) if grant.username == name}

    def refused(self, *command: str) -> str:
        """What a command says that must fail.  It changes no account."""
        before = self.served.run(self.store.key_values.list_all("user", 0))
        shown = self.operator.run("user", *command)
        assert shown.exit_code == 1 and len(shown.output.splitlines()) == 1, shown.output
        assert self.served.run(self.store.key_values.list_all("user", 0)) == before
        return shown.output

    def done(self, *command: str) -> str:
        """What a command says that must succeed, and writes one line."""
        before = self.lines()
        shown = self.operator.must("user", *command)
        assert self.lines() == before + 1
        return shown

    def lines(self) -> int:
        self.served.run(self.served.parts.auditor.flush())
        return len(self.served.run(self.store.read_log("audit", 0, 100_000)))

    def last_event(self) -> dict[str, object]:
        lines = [json.loads(text)["event"] for _, text in self.served.run(self.store.read_log("audit", 0, 100_000))]
        entity = next(one for line in reversed(lines) for one in line.get("entity", ()) if "name" in one)
        return {"kind": entity["name"]} | {each["type"]: each["valueString"] for each in entity["detail"]}


@pytest.fixture(params=STORES)
def office(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Office]:
    operator = new_operator(request.param, tmp_path, monkeypatch)
    made = Office(operator)
    operator.must("user", "unlock", "adult")  # the audit log begins
    yield made
    made.served.close()


def test_another_child_is_linked_and_unlinked_at_once(office: Office) -> None:
    office.done("unlink", "parent-a", "--related-person", TEEN)
    child, cookie = office.token("parent-a", "child", fhir_user=f"RelatedPerson/{CHILD}"), office.session("parent-a")
    teen = office.token("parent-a", "teen")
    assert (office.status(child, "Patient/child"), office.status(teen, "Patient/teen")) == (200, 404)

    assert TEEN in office.done("link", "parent-a", "--related-person", TEEN)
    assert (office.status(child, "Patient/child"), office.status(teen, "Patient/teen")) == (200, 200)
    assert not office.is_signed_in(cookie)
    own = office.token("parent-a", "teen", fhir_user=f"RelatedPerson/{TEEN}")
    assert office.status(own, "Patient/teen") == 200

    office.done("unlink", "parent-a", "--related-person", TEEN)
    assert [office.status(token, "Patient/teen") for token in (teen, own)] == [404, 401]
    assert office.status(child, "Patient/child") == 200
    assert office.families("parent-a") == {f"parent-a child RelatedPerson/{CHILD}", "parent-a teen None"}


def test_linking_refuses_what_opens_nothing_or_is_another_persons(office: Office) -> None:
    assert "There is no user 'nobody'" in office.refused("link", "nobody", "--related-person", TEEN)
    assert "opens no further record" in office.refused("link", "adult", "--related-person", "misspelled")
    assert "linked to 'parent-a' already" in office.refused("link", "parent-a", "--related-person", TEEN)
    assert "belongs to the account 'parent-a'" in office.refused("link", "adult", "--related-person", TEEN)
    assert "is Patient/adult already" in office.refused("link", "adult", "--patient", "teen")
    assert "A work account has no patient" in office.refused("link", "clinician", "--patient", "adult")
    assert "has no RelatedPerson/misspelled" in office.refused("unlink", "parent-a", "--related-person", "misspelled")
    assert "belongs to the account 'adult'" in office.refused("add", "twin", "--patient", "adult")
    assert "not stored yet" not in office.done("link", "adult", "--related-person", "later", "--anyway")
    assert "RelatedPerson/later" in office.user("adult").references


def test_name_changes_end_nothing(office: Office) -> None:
    token, cookie = office.token("adult", "adult"), office.session("adult")
    office.done("set-name", "adult", "Alex  Doe")
    assert office.user("adult").name == "Alex Doe"
    assert office.is_signed_in(cookie) and office.status(token, "Patient/adult") == 200
    assert "1 to 200 printable" in office.refused("set-name", "adult", " ")


def test_role_change_ends_everything_of_the_former_role(office: Office) -> None:
    provider = identity_providers.Provider("https://id.example", "Example", "client", "private_key_jwt")
    office.served.run(identity_providers.add(office.smart, provider))
    office.served.run(identity_providers.link(office.store, "https://id.example", "sub-1", "adult"))
    token, cookie = office.token("adult", "adult"), office.session("adult")
    assert office.status(token, "Patient/adult") == 200
    assert "has the role patient already" in office.refused("set-role", "adult", "patient")
    assert "personal account has no Practitioner" in office.refused("set-role", "clinician", "patient", "--practitioner", "dr-rivera")

    office.done("set-role", "adult", "billing")
    assert office.user("adult").references == frozenset()
    assert not office.is_signed_in(cookie) and office.status(token, "Patient/adult") == 401
    assert office.families("adult") == set()
    assert office.served.run(identity_providers.find_account(office.store, "https://id.example", "sub-1")) is None
    assert office.last_event() | {"resources": ""} == {
        "kind": "change-account", "what": "role", "role": "billing", "by": "operator", "resources": "",
    }  # fmt: skip
    office.done("set-role", "adult", "patient")  # the former record does not come back by itself
    assert office.user("adult").references == frozenset()
    assert office.status(token, "Patient/adult") == 401


def test_grant_decided_before_a_role_change_is_void(office: Office) -> None:
    """The person's answer was on its way when the operator changed the role, and its code was stored afterwards."""
    decided = TokenGrant("demo-public", "user/*.rs", "late", "clinician", generation=office.user("clinician").generation)
    office.done("set-role", "clinician", "privacy")
    late = office.served.run(tokens.issue(office.store, decided, NOW)).access
    assert office.status(late, "Patient?_count=1") == 401
    assert office.status(office.token("clinician", scope="user/*.rs"), "AuditEvent?_count=1") == 200


def test_locking_ends_sessions_and_tokens_for_good(office: Office) -> None:
    token, cookie = office.token("adult", "adult"), office.session("adult")
    office.done("lock", "adult")
    assert "locked" in next(line for line in office.operator.must("user", "list").splitlines() if line.startswith("adult "))
    assert office.status(token, "Patient/adult") == 401 and not office.is_signed_in(cookie)
    assert sign_in(office, "adult", "demo-password") is None
    office.done("unlock", "adult")
    assert office.status(token, "Patient/adult") == 401 and not office.is_signed_in(cookie)
    assert office.families("adult") == set()


def test_unlocking_forgets_failed_attempts_on_every_device(office: Office) -> None:
    name = "person"
    office.operator.must("user", "add", name, "--password", PASSWORD)
    assert sign_in(office, name, PASSWORD)
    for _ in range(6):  # the sixth takes the turn of this moment
        assert sign_in(office, name, "wrong") is None
    second = AttemptLimit(f"second:{office.user(name).subject}", username=name)
    while office.served.run(second.take(office.store.key_values, NOW)):
        pass
    assert sign_in(office, name, PASSWORD) is None
    office.done("unlock", name)
    assert sign_in(office, name, PASSWORD) and office.served.run(second.take(office.store.key_values, NOW))


def sign_in(office: Office, name: str, password: str) -> User | None:
    check = password_sign_in.check_password_sign_in(office.store, name, password, "192.0.2.1", NOW)
    return office.served.run(check)


def test_renaming_keeps_the_person_and_ends_what_names_the_account(office: Office) -> None:
    office.operator.must("user", "add", "jane", "--password", PASSWORD, "--related-person", "someone")
    before = office.user("jane")
    token, cookie = office.token("jane", "child"), office.session("jane")
    assert "There is already a user 'adult'" in office.refused("rename", "jane", "Adult")
    assert "1 to 200 printable" in office.refused("rename", "jane", " ")
    office.done("rename", "jane", "Jane.Doe")
    after = office.user("jane.doe")
    assert (after.subject, after.owner_name, after.password_hash) == (before.subject, before.owner_name, before.password_hash)
    assert office.served.run(users.find(office.store, "jane")) is None
    assert office.status(token, "Patient/child") == 401 and not office.is_signed_in(cookie)
    assert sign_in(office, "jane", PASSWORD) is None and sign_in(office, "jane.doe", PASSWORD)


def test_interrupted_rename_is_finished_by_repeating_it(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    async def stopped(*_: object) -> None:
        raise OSError("stopped")

    with monkeypatch.context() as patch:
        patch.setattr(users, "give_up", stopped)
        assert office.operator.run("user", "rename", "adult", "grown-up").exit_code == 1
    assert office.user("adult").subject == office.user("grown-up").subject
    office.done("rename", "adult", "grown-up")
    assert office.served.run(users.find(office.store, "adult")) is None and office.user("grown-up").patient == "adult"


def test_merging_gives_the_sum_and_ends_the_other_account(office: Office) -> None:
    office.done("unlink", "parent-a", "--related-person", TEEN)
    office.operator.must("user", "add", "parent-a-2", "--related-person", TEEN, "--password", PASSWORD)
    kept = office.token("parent-a", "child", fhir_user=f"RelatedPerson/{CHILD}")
    ended = office.token("parent-a-2", "teen", fhir_user=f"RelatedPerson/{TEEN}")
    cookies = [office.session("parent-a"), office.session("parent-a-2")]
    assert [office.status(kept, "Patient/child"), office.status(ended, "Patient/teen")] == [200, 200]

    kept_before = office.user("parent-a").references
    asked = office.operator.run("user", "merge", "parent-a", "parent-a-2")
    assert asked.exit_code == 1 and "Aborted" in asked.output  # no answer to the question
    office.user("parent-a-2")

    office.done("merge", "parent-a", "parent-a-2", "--yes")
    assert office.last_event()["ended"] == "parent-a-2"
    assert office.user("parent-a").references == kept_before | {f"RelatedPerson/{TEEN}"}
    assert [office.status(kept, "Patient/child"), office.status(ended, "Patient/teen")] == [200, 401]
    assert office.status(kept, "Patient/teen") == 404  # the app was not given this record
    assert not any(map(office.is_signed_in, cookies))
    assert office.served.run(users.find(office.store, "parent-a-2")) is None
    assert "There is no user 'parent-a-2'" in office.refused("merge", "parent-a", "parent-a-2", "--yes")


def test_merging_refuses_accounts_of_two_people(office: Office) -> None:
    assert "different people" in office.refused("merge", "adult", "newly-adult", "--yes")
    assert "with itself" in office.refused("merge", "adult", " ADULT", "--yes")
    assert "cannot be merged" in office.refused("merge", "adult", "clinician", "--yes")
    office.done("lock", "parent-b")
    assert "'parent-b' is locked" in office.refused("merge", "parent-a", "parent-b", "--yes")


def test_interrupted_merge_can_be_repeated(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    office.operator.must("user", "add", "adult-2", "--related-person", "later", "--password", PASSWORD)

    async def stopped(*_: object) -> None:
        raise OSError("stopped")

    with monkeypatch.context() as patch:
        patch.setattr(users, "remove_locked", stopped)
        assert office.operator.run("user", "merge", "adult", "adult-2", "--yes").exit_code == 1
    office.done("merge", "adult", "adult-2", "--yes")
    assert office.user("adult").references == {"Patient/adult", "RelatedPerson/later"}


def test_show_prints_the_account_without_secrets(office: Office) -> None:
    office.token("adult", "adult")
    office.session("adult")
    shown = json.loads(office.operator.must("user", "show", "ADULT"))
    assert (shown["resources"], shown["records"], shown["sessions"], shown["locked"]) == (["Patient/adult"], ["adult"], 1, False)
    assert shown["apps"] == [{"client": "demo-public", "patient": "adult", "scope": "patient/*.rs"}]
    assert "argon2" not in json.dumps(shown) and office.user("adult").subject not in json.dumps(shown)
    assert "There is no user" in office.refused("show", "nobody")


def test_nothing_changes_if_it_cannot_be_recorded(office: Office) -> None:
    before = office.user("adult")
    for command in (("lock", "adult"), ("set-role", "adult", "billing"), ("merge", "adult", "parent-a", "--yes"), ("unlock", "adult")):
        refused = office.operator.run("user", *command, SECRET_KEY="another key, as long as that of the server")
        assert refused.exit_code == 1
    assert office.user("adult") == before


def test_later_account_of_a_name_owns_nothing_of_the_former(office: Office) -> None:
    """App data, exports and own acts in the audit log belong to a person, and not to whoever has the user name later."""
    office.operator.must("user", "remove", "parent-b")
    office.served.at(NOW + 2_000_000)
    former = office.token("parent-a", "child", fhir_user=f"RelatedPerson/{CHILD}", scope="patient/*.cruds")
    state = {"resourceType": "Basic", "code": {"coding": [{"system": "https://app.example", "code": "state"}]}}
    stored = office.served.request(former, "POST", "Basic", body=state | {"subject": {"reference": "Patient/child"}})
    assert stored.status == 201 and office.status(former, f"Basic/{stored.json['id']}") == 200
    own = office.served.get(former, "AuditEvent").json["total"]
    office.operator.must("user", "remove", "parent-a", CLOCK="2026-11-21T12:00:03-05:00")
    office.operator.must("user", "add", "parent-a", "--related-person", CHILD, "--password", PASSWORD, CLOCK="2026-11-21T12:00:03-05:00")
    office.served.at(NOW + 5_000_000)
    later = office.token("parent-a", "child", fhir_user=f"RelatedPerson/{CHILD}", scope="patient/*.cruds")
    assert own > 0 and office.served.get(later, "AuditEvent").json["total"] == 0
    assert office.served.get(later, "AuditEvent").json["total"] == 1  # its own acts are its own
    assert office.status(later, f"Basic/{stored.json['id']}") == 404


def test_accounts_of_earlier_versions_are_found_by_their_resources(office: Office) -> None:
    for key, _ in office.served.run(office.store.key_values.list_all("user-index", 0)):
        office.served.run(office.store.key_values.pop("user-index", key, 0))
    assert "belongs to the account 'adult'" in office.refused("add", "twin", "--patient", "adult")
    office.served.run(office.store.key_values.put("user-index", "Patient/adult", b"clinician", MAX_INSTANT))  # out of date
    office.operator.must("user", "add", "twin", "--patient", "adult", "--password", PASSWORD)
