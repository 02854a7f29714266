"""E-mail leaves through an SMTP server, with TLS, or into a folder; what the server cannot hand over, it says without the address."""

from __future__ import annotations

import asyncio
import email
import email.policy
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from fhir_server.cli.base import load_settings
from fhir_server.smart.core.mail import Mail, Message, NoMail, UndeliverableError
from fhir_server.smart.notices.mail import FolderMail, SmtpMail, SmtpServer, open_mail
from tests.served import NOON, micros

MESSAGE = Message("id-1", "alex@adult.example", "Your code", "Enter this code: 1234\n.\nÄnd.\n")
SENDER, HOSPITAL = "no-reply@demo.example", 'Demo "Health"\r\nBcc: x'


class SmtpDouble:
    """An SMTP server for one connection at a time.  ``refusals`` are its answers to commands instead of the usual ones."""

    def __init__(self, refusals: dict[str, str]) -> None:
        self.received: list[str] = []
        self.commands: list[str] = []
        self._refusals = refusals
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)  # else the waiting thread keeps it open
        self._socket.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            with connection, connection.makefile("rwb") as stream:
                self._talk(stream)

    def _talk(self, stream: object) -> None:
        def say(line: str) -> None:
            stream.write(f"{line}\r\n".encode())  # type: ignore[attr-defined]
            stream.flush()  # type: ignore[attr-defined]

        say("220 ready")
        while line := stream.readline().decode().rstrip("\r\n"):  # type: ignore[attr-defined]
            command = line.split(" ")[0].upper()
            self.commands.append(command)
            if command in self._refusals:
                say(self._refusals[command])
            elif command == "DATA":
                say("354 go on")
                lines = []
                while (part := stream.readline().decode()) != ".\r\n":  # type: ignore[attr-defined]
                    lines.append(part)
                self.received.append("".join(lines))
                say("250 taken")
            elif command == "QUIT":
                say("221 bye")
                return
            else:
                say("250 ok")


@pytest.fixture
def refusals() -> dict[str, str]:
    return {}


@pytest.fixture
def double(refusals: dict[str, str]) -> Iterator[SmtpDouble]:
    made = SmtpDouble(refusals)
    yield made
    with suppress(OSError):
        made.close()


def smtp(double: SmtpDouble, host: str = "127.0.0.1") -> Mail:
    return SmtpMail(SmtpServer(host, double.port, is_tls=False), SENDER, HOSPITAL, lambda: micros(NOON))


def send(mail: Mail) -> None:
    asyncio.run(mail.send(MESSAGE))


def test_a_message_reaches_the_mail_server_whole(double: SmtpDouble) -> None:
    send(smtp(double))
    found = email.message_from_string(double.received[0].replace("\r\n..", "\r\n."), policy=email.policy.default)
    assert (found["To"], found["Subject"], found["Message-ID"]) == ("alex@adult.example", "Your code", "<id-1@demo.example>")
    assert found["From"] == '"Demo HealthBcc: x" <no-reply@demo.example>' and found["Bcc"] is None
    assert found["Auto-Submitted"] == "auto-generated" and found["Date"]
    body = found.get_body()
    assert body is not None and body.get_content().splitlines() == MESSAGE.text.splitlines()


@pytest.mark.parametrize(
    ("refusals", "is_final"),
    [
        ({"RCPT": "550 no such alex@adult.example"}, True),
        ({"RCPT": "450 later, alex@adult.example"}, False),
        ({"DATA": "451 alex@adult.example not now"}, False),
        ({"MAIL": "554 no alex@adult.example"}, False),
        ({"EHLO": "421 away", "HELO": "421 away"}, False),
    ],
)
def test_a_refusal_says_whether_it_is_final_and_names_no_address(double: SmtpDouble, is_final: bool) -> None:
    with pytest.raises(UndeliverableError) as caught:
        send(smtp(double))
    assert caught.value.is_final is is_final
    assert "alex" not in str(caught.value) and caught.value.__cause__ is None


def test_an_absent_mail_server_is_no_final_refusal(double: SmtpDouble) -> None:
    double.close()
    with pytest.raises(UndeliverableError) as caught:
        send(smtp(double))
    assert not caught.value.is_final


def test_nothing_leaves_the_machine_without_tls(double: SmtpDouble, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server offers no STARTTLS: at a loopback address that is enough, elsewhere it is not."""
    connect = socket.create_connection
    monkeypatch.setattr(socket, "create_connection", lambda address, *rest, **more: connect(("127.0.0.1", address[1]), *rest, **more))
    with pytest.raises(UndeliverableError):
        send(smtp(double, "mail.hospital.example"))
    assert double.received == []
    send(smtp(double))  # the control
    assert len(double.received) == 1


def test_credentials_are_not_sent_without_tls(double: SmtpDouble, monkeypatch: pytest.MonkeyPatch) -> None:
    connect = socket.create_connection
    monkeypatch.setattr(socket, "create_connection", lambda address, *rest, **more: connect(("127.0.0.1", address[1]), *rest, **more))
    server = SmtpServer("mail.hospital.example", double.port, is_tls=False, username="portal", password="secret")
    with pytest.raises(UndeliverableError):
        send(SmtpMail(server, SENDER, HOSPITAL, lambda: 0))
    assert "AUTH" not in double.commands


def test_a_folder_holds_each_message_as_a_file_that_others_cannot_read(tmp_path: Path) -> None:
    folder = tmp_path / "messages"
    send(FolderMail(folder, SENDER, "Demo Health", lambda: micros(NOON)))
    (file,) = folder.iterdir()
    assert email.message_from_bytes(file.read_bytes())["To"] == MESSAGE.to
    assert (file.stat().st_mode & 0o077, folder.stat().st_mode & 0o077) == (0, 0)


def test_a_folder_that_cannot_be_written_is_tried_again(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UndeliverableError) as caught:
        send(FolderMail(tmp_path / "file" / "messages", SENDER, "Demo Health", lambda: 0))
    assert not caught.value.is_final


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("smtp://mail.example", SmtpServer("mail.example", 587, False)),
        ("smtps://mail.example", SmtpServer("mail.example", 465, True)),
        ("smtp://portal:p%40ss@mail.example:2525", SmtpServer("mail.example", 2525, False, "portal", "p@ss")),
    ],
)
def test_the_url_of_a_mail_server_is_read(url: str, expected: SmtpServer) -> None:
    assert SmtpServer.parse(url) == expected


@pytest.mark.parametrize(
    ("url", "folder", "sender", "word"),
    [
        ("http://mail.example", "", SENDER, "SMTP_URL"),
        ("smtp://", "", SENDER, "SMTP_URL"),
        ("smtp://mail.example:x", "", SENDER, "SMTP_URL"),
        ("smtp://mail.example/path", "", SENDER, "SMTP_URL"),
        ("smtp://mail.example", "", "", "MAIL_FROM"),
        ("", "messages", "nobody", "MAIL_FROM"),
        ("smtp://mail.example", "messages", SENDER, "both set"),
    ],
)
def test_settings_that_make_no_mail_are_refused_with_their_name(url: str, folder: str, sender: str, word: str) -> None:
    with pytest.raises(ValueError, match=word):
        open_mail(url, folder, sender, "Demo Health", lambda: 0)


def test_a_server_sends_no_mail_by_default_and_the_demo_into_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fhir_server.cli.serve import _with_messages

    assert isinstance(open_mail("", "", "", "Demo Health", lambda: 0), NoMail)
    monkeypatch.setenv("FHIR_SERVER_STORE", f"sqlite:///{tmp_path}/fhir.sqlite")
    for name in ("FHIR_SERVER_MAIL_FOLDER", "FHIR_SERVER_MAIL_FROM"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    settings = _with_messages(load_settings())
    assert settings.mail_folder == str(tmp_path / "messages")
