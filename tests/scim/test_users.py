"""Accounts by SCIM: each change takes effect at once in another server process, on both stores."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from fhir_server.smart.accounts import password_sign_in, sessions, users
from fhir_server.smart.core.token_grants import TokenGrant, active_grants
from fhir_server.smart.tokens import tokens
from tests.scim.environment import LINKS, PASSWORD, USER, Administration
from tests.served import NOON, micros, store_url

NOW = micros(NOON)
CHILD, TEEN = "parent-a-of-child", "parent-a-of-teen"


class Pair:
    """Two server processes on one store: ``here`` changes accounts, ``there`` serves records."""

    def __init__(self, url: str) -> None:
        self.here = Administration(url)
        self.there = Administration(url, seeds=False)

    def token(self, name: str, patient: str | None = None, scope: str = "patient/*.rs", fhir_user: str | None = None) -> str:
        generation = self.there.account(name).generation
        grant = TokenGrant("demo-public", scope, f"{name} {patient} {fhir_user}", name, patient, None, fhir_user, generation=generation)
        return self.there.served.run(tokens.issue(self.there.store, grant, NOW, refresh=scope)).access

    def session(self, name: str) -> str:
        return self.there.served.run(sessions.start(self.there.smart, self.there.account(name), authenticated=self.there.smart.now()))

    def is_signed_in(self, cookie: str) -> bool:
        return self.there.served.run(sessions.current(self.there.smart, cookie)) is not None

    def status(self, token: str, path: str) -> int:
        return self.there.served.get(token, path).status

    def signs_in(self, name: str, password: str) -> bool:
        check = password_sign_in.check_password_sign_in(self.there.store, name, password, "192.0.2.1", NOW)
        return self.there.served.run(check) is not None

    def families(self, name: str) -> set[str]:
        grants = self.there.served.run(active_grants(self.there.store, NOW))
        return {grant.family for grant in grants if grant.username == name}


@pytest.fixture(scope="module", params=["sqlite", "mongodb"])
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    made = Pair(store_url(request.param, tmp_path_factory.mktemp("store")))
    yield made
    made.there.close()
    made.here.close()


@pytest.fixture(scope="module")
def alone() -> Iterator[Administration]:
    made = Administration(seeds=False)
    yield made
    made.close()


def test_created_account_signs_in_and_its_password_is_hashed(pair: Pair) -> None:
    made = pair.here.create("Casey.One", displayName="Casey Doe", externalId="ext-1", password=PASSWORD, roles=[{"value": "billing"}])
    assert (made["userName"], made["name"], made["active"], made["roles"]) == (
        "casey.one", {"formatted": "Casey Doe"}, True, [{"value": "billing"}],
    )  # fmt: skip
    assert "password" not in json.dumps(made)
    assert LINKS not in made["schemas"] or made[LINKS] == {}
    account = pair.there.account("casey.one")
    assert account.password_hash.startswith("$argon2id$") and (account.role, account.external_id) == ("billing", "ext-1")
    assert pair.signs_in("casey.one", PASSWORD) and not pair.signs_in("casey.one", "wrong")
    read = pair.there.request("GET", f"/Users/{made['id']}")
    assert read.json == made and read.headers["etag"] == made["meta"]["version"]


def test_account_without_password_waits_for_a_code(pair: Pair) -> None:
    pair.here.create("casey.two")
    assert pair.there.account("casey.two").role == "patient" and pair.there.account("casey.two").references == frozenset()
    assert not pair.signs_in("casey.two", "")


def test_deactivation_ends_sessions_and_tokens_at_once(pair: Pair) -> None:
    token, cookie, id = pair.token("adult", "adult"), pair.session("adult"), pair.here.id("adult")
    assert pair.status(token, "Patient/adult") == 200 and pair.is_signed_in(cookie)
    assert pair.here.patch(id, {"op": "replace", "path": "active", "value": False}).json["active"] is False
    assert pair.status(token, "Patient/adult") == 401 and not pair.is_signed_in(cookie)
    assert pair.here.patch(id, {"op": "Replace", "value": {"active": True}}).json["active"] is True
    assert pair.status(token, "Patient/adult") == 401 and pair.families("adult") == set()
    assert pair.status(pair.token("adult", "adult"), "Patient/adult") == 200


def test_linked_children_follow_the_patches(pair: Pair) -> None:
    id, path = pair.here.id("parent-a"), f"{LINKS}:relatedPersons"
    teen = pair.token("parent-a", "teen", fhir_user=f"RelatedPerson/{TEEN}")
    child = pair.token("parent-a", "child", fhir_user=f"RelatedPerson/{CHILD}")
    assert [pair.status(teen, "Patient/teen"), pair.status(child, "Patient/child")] == [200, 200]
    removed = pair.here.patch(id, {"op": "remove", "path": f'{path}[value eq "{TEEN}"]'})
    assert TEEN not in [each["value"] for each in removed.json[LINKS]["relatedPersons"]]
    assert [pair.status(teen, "Patient/teen"), pair.status(child, "Patient/child")] == [401, 200]
    pair.here.patch(id, {"op": "add", "path": path, "value": [{"value": TEEN}]})
    assert pair.status(teen, "Patient/teen") == 401  # the grant ended with its basis
    assert pair.status(pair.token("parent-a", "teen", fhir_user=f"RelatedPerson/{TEEN}"), "Patient/teen") == 200
    taken = pair.here.patch(pair.here.id("parent-b"), {"op": "add", "path": path, "value": [{"value": CHILD}]})
    assert (taken.status, taken.json["scimType"]) == (409, "uniqueness") and "'parent-a'" in taken.json["detail"]


def test_role_change_keeps_no_resource_that_is_not_stated(pair: Pair) -> None:
    token, id = pair.token("clinician", scope="user/*.rs"), pair.here.id("clinician")
    assert pair.status(token, "Patient?_count=1") == 200
    changed = pair.here.patch(id, {"op": "replace", "path": "roles", "value": [{"value": "privacy"}]})
    assert changed.json["roles"] == [{"value": "privacy"}] and "practitioner" not in changed.json.get(LINKS, {})
    assert pair.status(token, "Patient?_count=1") == 401 and pair.families("clinician") == set()
    back = pair.here.patch(id, {"op": "replace", "value": {"roles": [{"value": "clinician"}], LINKS: {"practitioner": "dr-rivera"}}})
    assert back.json[LINKS] == {"practitioner": "dr-rivera", "fhirUser": "Practitioner/dr-rivera"}
    assert pair.status(token, "Patient?_count=1") == 401
    refused = pair.here.patch(id, {"op": "replace", "path": f"{LINKS}:patient", "value": "adult"})
    assert (refused.status, refused.json["scimType"]) == (400, "invalidValue")


def test_renaming_ends_what_names_the_account(pair: Pair) -> None:
    id = pair.here.create("casey.three", password=PASSWORD)["id"]
    cookie = pair.session("casey.three")
    renamed = pair.here.patch(id, {"op": "replace", "path": "userName", "value": "Casey.Four"})
    assert (renamed.status, renamed.json["userName"], renamed.json["id"]) == (200, "casey.four", id)
    assert not pair.is_signed_in(cookie) and pair.signs_in("casey.four", PASSWORD) and not pair.signs_in("casey.three", PASSWORD)
    taken = pair.here.patch(id, {"op": "replace", "path": "userName", "value": "ADULT"})
    assert (taken.status, taken.json["scimType"]) == (409, "uniqueness")
    assert pair.there.request("GET", f"/Users/{id}").json["userName"] == "casey.four"


def test_new_password_ends_sessions(pair: Pair) -> None:
    id = pair.here.create("casey.five", password=PASSWORD)["id"]
    cookie = pair.session("casey.five")
    weak = pair.here.patch(id, {"op": "replace", "path": "password", "value": "short"})
    assert (weak.status, weak.json["scimType"]) == (400, "invalidValue") and pair.is_signed_in(cookie)
    changed = pair.here.patch(id, {"op": "replace", "path": "password", "value": "Another-pass-2026"})
    assert changed.status == 200 and "Another" not in changed.body.decode()
    assert not pair.is_signed_in(cookie) and pair.signs_in("casey.five", "Another-pass-2026") and not pair.signs_in("casey.five", PASSWORD)


def test_replacing_keeps_what_it_does_not_state(pair: Pair) -> None:
    made = pair.here.create("casey.six", displayName="Casey", externalId="ext-6", **{LINKS: {"patient": "unknown-patient"}})
    body = {"schemas": [USER], "userName": "casey.six", "displayName": "Casey Six"}
    replaced = pair.here.request("PUT", f"/Users/{made['id']}", body).json
    assert (replaced["displayName"], replaced[LINKS]["patient"]) == ("Casey Six", "unknown-patient") and "externalId" not in replaced
    assert pair.here.request("PUT", f"/Users/{made['id']}", {**body, LINKS: {}}).json.get(LINKS, {}).get("patient") is None


def test_removal_ends_everything_and_frees_the_name(pair: Pair) -> None:
    id, token, cookie = pair.here.id("newly-adult"), pair.token("newly-adult", "newly-adult"), pair.session("newly-adult")
    assert pair.status(token, "Patient/newly-adult") == 200
    assert pair.here.request("DELETE", f"/Users/{id}").status == 204
    assert pair.status(token, "Patient/newly-adult") == 401 and not pair.is_signed_in(cookie)
    for method, body in (("GET", None), ("DELETE", None), ("PUT", {"schemas": [USER], "userName": "x"})):
        assert pair.there.request(method, f"/Users/{id}", body).status == 404
    assert pair.here.create("newly-adult", **{LINKS: {"patient": "newly-adult"}})["id"] != id


def test_versions_guard_changes_and_reads(pair: Pair) -> None:
    made = pair.here.create("casey.seven")
    id, first = made["id"], made["meta"]["version"]
    rename = {"op": "replace", "path": "displayName", "value": "Seven"}
    second = pair.here.patch(id, rename, headers={"if-match": first}).headers["etag"]
    assert second != first
    for answer in (
        pair.there.patch(id, {**rename, "value": "Eight"}, headers={"if-match": first}),
        pair.there.request("PUT", f"/Users/{id}", {"schemas": [USER], "userName": "x"}, headers={"if-match": first}),
        pair.there.request("DELETE", f"/Users/{id}", headers={"if-match": first}),
    ):
        assert answer.status == 412 and answer.json["status"] == "412"
    assert pair.there.request("GET", f"/Users/{id}", headers={"if-none-match": second}).status == 304
    assert pair.there.request("GET", f"/Users/{id}", headers={"if-none-match": first}).json["displayName"] == "Seven"
    assert pair.here.request("DELETE", f"/Users/{id}", headers={"if-match": f'"x", {second}'}).status == 204


def test_filters_and_pages_find_accounts(pair: Pair) -> None:
    made = pair.here.create("casey.eight", externalId="Ext-8")
    for text in ('userName eq "Casey.Eight"', 'USERNAME EQ "casey.eight"', 'externalId eq "Ext-8"', f'id eq "{made["id"]}"'):
        found = pair.there.request("GET", f"/Users?filter={text.replace(' ', '%20')}").json
        assert ([each["id"] for each in found["Resources"]], found["totalResults"]) == ([made["id"]], 1), text
    assert pair.there.request("GET", "/Users?filter=externalId%20eq%20%22ext-8%22").json["totalResults"] == 0  # case-exact
    for text in (
        'userName sw "c"',
        'roles.value eq "privacy"',
        "active eq true",
        "userName pr",
        "nonsense",
        'userName eq "a" or id eq "b"',
    ):
        refused = pair.there.request("GET", f"/Users?filter={text.replace(' ', '%20')}")
        assert (refused.status, refused.json["scimType"]) == (400, "invalidFilter"), text
    whole = pair.there.request("GET", "/Users").json
    names = [each["userName"] for each in whole["Resources"]]
    assert names == sorted(names) and whole["totalResults"] == len(names) == len(pair.there.served.run(users.list_all(pair.there.store)))
    paged = [pair.there.request("GET", f"/Users?startIndex={start}&count=3").json for start in range(1, len(names) + 1, 3)]
    assert [each["userName"] for page in paged for each in page["Resources"]] == names
    assert [page["startIndex"] for page in paged] == list(range(1, len(names) + 1, 3))
    body = {"schemas": ["urn:ietf:params:scim:api:messages:2.0:SearchRequest"], "filter": 'userName eq "casey.eight"'}
    assert pair.there.request("POST", "/Users/.search", body).json["totalResults"] == 1


def test_attributes_are_chosen_by_parameters(alone: Administration) -> None:
    made = alone.create("chosen", displayName="Chosen")
    only = alone.request("GET", f"/Users/{made['id']}?attributes=userName").json
    assert set(only) == {"schemas", "id", "userName"}
    less = alone.request("GET", f"/Users/{made['id']}?excludedAttributes=displayName,meta").json
    assert not {"displayName", "meta"} & less.keys() and "userName" in less
    assert set(alone.request("GET", "/Users?attributes=userName").json["Resources"][0]) == {"schemas", "id", "userName"}


@pytest.mark.parametrize(
    ("operations", "status", "scim_type"),
    [
        ([{"op": "replace", "path": "active", "value": "perhaps"}], 400, "invalidValue"),
        ([{"op": "replace", "path": "id", "value": "x"}], 400, "mutability"),
        ([{"op": "remove", "path": "userName"}], 400, "mutability"),
        ([{"op": "remove"}], 400, "noTarget"),
        ([{"op": "move", "path": "active"}], 400, "invalidValue"),
        ([{"op": "replace", "path": "active[", "value": True}], 400, "invalidPath"),
        ([{"op": "replace", "path": f"{LINKS}:fhirUser", "value": "Patient/adult"}], 400, "mutability"),
        ([{"op": "replace", "path": f"{LINKS}:patient", "value": "../adult"}], 400, "invalidValue"),
        ([{"op": "add", "path": "roles", "value": [{"value": "clinician"}]}], 400, "invalidValue"),
        ([{"op": "replace", "path": "roles", "value": [{"value": "root"}]}], 400, "invalidValue"),
        ([{"op": "replace", "path": "displayName", "value": "x" * 201}], 400, "invalidValue"),
        ([{"op": "replace", "path": "displayName", "value": "first"}, {"op": "replace", "path": "id", "value": "x"}], 400, "mutability"),
        ([], 400, "invalidValue"),
    ],
)  # fmt: skip
def test_wrong_patches_change_nothing(alone: Administration, operations: list[object], status: int, scim_type: str) -> None:
    id = alone.create(f"wrong-{len(alone.events())}")["id"]
    before = alone.request("GET", f"/Users/{id}").json
    answer = alone.patch(id, *operations)
    assert (answer.status, answer.json.get("scimType"), answer.json["status"]) == (status, scim_type, str(status)), answer.body
    assert answer.json["schemas"] == ["urn:ietf:params:scim:api:messages:2.0:Error"] and answer.json["detail"]
    assert alone.request("GET", f"/Users/{id}").json == before


@pytest.mark.parametrize(
    "body",
    [
        b"", b"[]", b"{", b"\xff", b'{"userName": "\\ud800"}', b"[" * 60_000, {}, {"schemas": [USER]}, {"schemas": [USER], "userName": 1},
        {"schemas": [USER], "userName": "a\u0000b"}, {"schemas": [USER], "userName": " "}, {"schemas": [USER], "userName": "x" * 201},
        {"schemas": ["urn:else"], "userName": "b"}, {"schemas": [USER], "userName": "b", "password": "short"},
        {"schemas": [USER], "userName": "b", "externalId": "\u0000"}, {"schemas": [USER], "userName": "b", LINKS: {"patient": "a/b"}},
        {"schemas": [USER], "userName": "b", "roles": [{"value": "patient"}, {"value": "privacy"}]},
    ],
    ids=repr,
)  # fmt: skip
def test_wrong_bodies_create_nothing(alone: Administration, body: object) -> None:
    before = alone.served.run(users.list_all(alone.store))
    answer = alone.request("POST", "/Users", body)
    assert answer.status == 400 and answer.json["detail"], answer.body
    assert alone.served.run(users.list_all(alone.store)) == before


def test_taken_names_are_a_conflict(alone: Administration) -> None:
    alone.create("taken", externalId="taken-1", **{LINKS: {"patient": "taken-patient"}})
    for members in (
        {"userName": " TAKEN"},
        {"userName": "b", "externalId": "taken-1"},
        {"userName": "b", LINKS: {"patient": "taken-patient"}},
    ):
        answer = alone.request("POST", "/Users", {"schemas": [USER], **members})
        assert (answer.status, answer.json["scimType"]) == (409, "uniqueness")


def test_names_of_two_forms_are_kept_apart(alone: Administration) -> None:
    made = alone.create("forms", displayName="Dr. Doe", name={"formatted": "Jane A. Doe", "givenName": "Jane"})
    assert (made["displayName"], made["name"]) == ("Dr. Doe", {"formatted": "Jane A. Doe"})
    changed = alone.patch(made["id"], {"op": "replace", "path": "name.formatted", "value": "Jane B. Doe"}).json
    assert (changed["displayName"], changed["name"]["formatted"]) == ("Dr. Doe", "Jane B. Doe")
    one = alone.create("one-form", displayName="Alex")
    changed = alone.patch(one["id"], {"op": "replace", "path": "name.formatted", "value": "Alexandra"}).json
    assert (changed["displayName"], changed["name"]["formatted"]) == ("Alexandra", "Alexandra")


@pytest.mark.parametrize(
    "query",
    [
        "startIndex=9999999999999999999999", "startIndex=-5", "count=-1", "count=99999999999999999999", "startIndex=x", "count=1.5",
        f"count={'9' * 5000}", "filter=", "filter=%00", "filter=userName%20eq%20%22%5Cud800%22", "filter=userName%20eq%20%22%5Cu0000%22",
        "filter=" + "(" * 5000, "attributes=%00", "attributes=a&excludedAttributes=b", "sortBy=userName", "sortBy=x", "filter=%ff", "x=y",
    ],
)  # fmt: skip
def test_no_query_is_a_server_error(alone: Administration, query: str) -> None:
    assert alone.request("GET", f"/Users?{query}").status in (200, 400)
