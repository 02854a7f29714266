from __future__ import annotations

import asyncio
import hashlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

from fhir_server.app import build_components
from fhir_server.settings import Settings
from fhir_server.smart import demo
from fhir_server.smart.accounts import users
from fhir_server.smart.accounts.password_sign_in import check_password_sign_in
from fhir_server.smart.core.password_rules import COMMON_WORDS, MIN_GUESSES, MIN_LENGTH, PasswordRules, check, is_breached
from tests.smart.environment import World


@pytest.mark.parametrize(
    "password",
    [
        "Short-1pw",
        "qwertyuiop",
        "1234567890",
        "password12",
        "Password123!",
        "aaaaaaaaaaaa",
        "iloveyou2026",
        "trustno1trustno1",
    ],
)
def test_short_and_common_passwords_are_refused(password: str) -> None:
    with pytest.raises(ValueError, match=r"at least|too easy"):
        check(password)


@pytest.mark.parametrize(
    "password",
    [
        *(
            "blue kettle four spoons",
            "correcthorsebatterystaple",
            "            x7-lantern",
            "пароль подлиннее нужен",
            "🦔🦊🐢🦉🐝🦋🐌🐞🦀🐙",
        ),
        *("uvqnwkzjxe", "8302746195037", demo.PASSWORD, "x" + "mQ7 " * 60),
    ],
)
def test_hard_to_guess_password_of_any_composition_is_accepted(password: str) -> None:
    check(password)


def test_common_passwords_of_the_list_are_refused() -> None:
    from zxcvbn.frequency_lists import FREQUENCY_LISTS

    long = [word for word in FREQUENCY_LISTS["passwords"] if len(word) >= MIN_LENGTH]
    assert len(long) > 1000
    for word in long[:: len(long) // 200]:
        with pytest.raises(ValueError, match="too easy"):
            check(word)
    assert sum(len(word) >= 8 for word in FREQUENCY_LISTS["passwords"]) > 3000
    assert MIN_GUESSES > 3000 * 1000  # also refuses variants of common passwords


@pytest.mark.parametrize("password", ["demohealth12", "DemoHealth2026", "alexadult1985", "mercyhospital", "fhirserver1"])
def test_passwords_built_from_context_words_are_refused(password: str) -> None:
    with pytest.raises(ValueError, match="too easy"):
        check(password, ("Demo Health", "alex", "Alex Adult", "Mercy"))


def test_long_password_may_contain_context_words() -> None:
    check("demo health walnut 71 gramophone", ("Demo Health",))


def test_context_words_are_documented() -> None:
    page = (Path(__file__).parents[2] / "docs/security.md").read_text(encoding="utf-8")
    assert [word for word in COMMON_WORDS if not re.search(rf"\b{word}\b", page)] == []


def test_password_built_from_the_account_name_is_refused(world: World) -> None:
    with pytest.raises(ValueError, match="too easy"):
        asyncio.run(users.create(world.store, "gwendolyn.ashworth", "gwendolyn.ashworth1", "patient", name="Gwendolyn Ashworth"))


@pytest.mark.parametrize("length", [64, 1024, 3000])
def test_long_passwords_are_compared_to_the_last_character(world: World, length: int) -> None:
    password = ("q7 lantern mosaic " * 200)[: length - 1] + "!"
    user = asyncio.run(users.find(world.store, "adult"))
    assert user is not None
    asyncio.run(users.set_password(world.store, user, password, PasswordRules(), world.clock()))

    def tried(word: str) -> bool:
        return asyncio.run(check_password_sign_in(world.store, "adult", word, "10.0.0.1", world.clock())) is not None

    assert not tried(password[:-1])
    assert not tried(password + "x")
    assert not tried(password.swapcase())
    assert not tried(f" {password}")
    assert tried(password)


def hashes(*passwords: str) -> list[str]:
    return sorted(hashlib.sha1(word.encode()).hexdigest().upper() for word in passwords)


@pytest.mark.parametrize("end", ["\n", "\r\n", ":7\r\n"])
def test_breached_password_is_found_at_any_position_in_the_file(tmp_path: Path, end: str) -> None:
    words = [f"breached word {number}" for number in range(1, 65)]
    for size in (1, 2, 3, 64):
        file = tmp_path / f"{size}.txt"
        file.write_bytes("".join(line + end for line in hashes(*words[:size])).encode())
        assert [word for word in words if is_breached(file, word)] == words[:size]
        assert not is_breached(file, "another")


def test_breached_password_is_refused_for_a_new_account(world: World, tmp_path: Path) -> None:
    file = tmp_path / "hashes.txt"
    file.write_text("".join(f"{line}:3\n" for line in hashes("blue kettle four spoons", "other words altogether")))
    rules = PasswordRules.of(("Demo Health",), str(file))
    rules.check("blue kettle five spoons")
    with pytest.raises(ValueError, match="breach"):
        asyncio.run(users.create(world.store, "new", "blue kettle four spoons", "patient", rules=rules))
    with pytest.raises(ValueError, match="too easy"):
        rules.check("DemoHealth2026")
    assert build_components(Settings(store="memory:", mode="test", breached_passwords_file=str(file))).smart.passwords == rules


@pytest.mark.parametrize("content", [b"", b"password\n", b"cbfdac6008f9cab4083784cbd1874f76618d2a97:3\n"])
def test_invalid_breached_password_file_is_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "hashes.txt"
    file.write_bytes(content)
    for path in (file, tmp_path / "missing.txt"):
        with pytest.raises(ValueError, match="FHIR_SERVER_BREACHED_PASSWORDS_FILE"):
            PasswordRules.of((), str(path))


def test_passwords_are_hashed_with_owasp_s_parameters() -> None:
    """In a process of its own: in the tests' hashing is made cheap."""
    script = "from fhir_server.smart.accounts import users; print(users._hasher.hash('a password'))"
    shown = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout
    assert shown.startswith("$argon2id$v=19$m=19456,t=2,p=1$"), shown
