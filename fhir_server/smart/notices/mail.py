"""E-mail through an SMTP server (RFC 5321), or, for a demo, into a folder of files."""

from __future__ import annotations

import os
import smtplib
import ssl
from dataclasses import dataclass
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import formatdate
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

import anyio.to_thread

from fhir_server.clock import SECOND, Clock
from fhir_server.smart.core.mail import Mail, Message, NoMail, UndeliverableError
from fhir_server.smart.notices import addresses

_SECONDS: Final = 20  # without an answer of the server
_PORTS: Final = {"smtp": 587, "smtps": 465}
_LOOPBACK: Final = ("localhost", "127.0.0.1", "::1")
_POLICY: Final = SMTP.clone(cte_type="7bit")  # not every server takes more (RFC 6152)
_UNQUOTED: Final = {ord(sign): "" for sign in '"\\\r\n'}  # not allowed in the sender's name


@dataclass(frozen=True, slots=True)
class SmtpServer:
    """Where messages are handed over.

    ``is_tls``  TLS from the start (RFC 8314), else by STARTTLS, which only a loopback address may lack
    """

    host: str
    port: int
    is_tls: bool
    username: str = ""
    password: str = ""

    @staticmethod
    def parse(url: str) -> SmtpServer:
        """Read ``smtp://user:password@host:587`` or ``smtps://…``.  Raises ValueError, with a message for the operator."""
        parts = urlsplit(url)
        try:
            port = parts.port
        except ValueError:
            port = 0
        if parts.scheme not in _PORTS or not parts.hostname or port == 0 or parts.path.strip("/") or parts.query:
            raise ValueError("FHIR_SERVER_SMTP_URL must be smtp://user:password@host:port or smtps://user:password@host:port.")
        name, word = unquote(parts.username or ""), unquote(parts.password or "")
        return SmtpServer(parts.hostname, port or _PORTS[parts.scheme], parts.scheme == "smtps", name, word)


class SmtpMail:
    """Hands messages to an SMTP server, each over a connection of its own."""

    is_available = True

    def __init__(self, server: SmtpServer, sender: str, organization: str, now: Clock) -> None:
        self._server = server
        self._sender = sender
        self._organization = organization
        self._now = now

    async def send(self, message: Message) -> None:
        built = build(message, self._sender, self._organization, self._now())
        await anyio.to_thread.run_sync(self._send, built)

    def _send(self, message: EmailMessage) -> None:
        try:
            with self._connect() as connection:
                connection.send_message(message)
        except smtplib.SMTPRecipientsRefused as error:
            codes = [code for code, _ in error.recipients.values()]
            raise UndeliverableError(f"The recipient was refused ({codes[0]}).", is_final=codes[0] >= 500) from None
        except smtplib.SMTPResponseException as error:
            # What the server says may quote the address.
            raise UndeliverableError(f"The mail server answered {error.smtp_code}.", is_final=False) from None
        except (smtplib.SMTPException, OSError) as error:
            raise UndeliverableError(f"The mail server could not be used ({type(error).__name__}).", is_final=False) from None

    def _connect(self) -> smtplib.SMTP:
        server, context = self._server, ssl.create_default_context()
        if server.is_tls:
            connection: smtplib.SMTP = smtplib.SMTP_SSL(server.host, server.port, timeout=_SECONDS, context=context)
        else:
            connection = smtplib.SMTP(server.host, server.port, timeout=_SECONDS)
        try:
            if not server.is_tls and (server.host not in _LOOPBACK or connection.has_extn("starttls")):
                connection.starttls(context=context)
            if server.username:
                connection.login(server.username, server.password)
        except BaseException:
            connection.close()
            raise
        return connection


class FolderMail:
    """Writes each message into a file of a folder, which only the server's user can read."""

    is_available = True

    def __init__(self, folder: Path, sender: str, organization: str, now: Clock) -> None:
        self._folder = folder
        self._sender = sender
        self._organization = organization
        self._now = now

    async def send(self, message: Message) -> None:
        now = self._now()
        built = build(message, self._sender, self._organization, now)
        await anyio.to_thread.run_sync(self._write, f"{now}-{message.id}.eml", bytes(built))

    def _write(self, name: str, content: bytes) -> None:
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(self._folder / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
        except OSError as error:
            raise UndeliverableError(f"The folder of messages cannot be written ({error.strerror}).", is_final=False) from None


def build(message: Message, sender: str, organization: str, now: int) -> EmailMessage:
    """The message in the form of RFC 5322.  Mail systems are asked not to answer it by themselves (RFC 3834)."""
    built = EmailMessage(policy=_POLICY)
    built["From"] = f'"{organization.translate(_UNQUOTED)}" <{sender}>'
    built["To"] = message.to
    built["Subject"] = message.subject
    built["Date"] = formatdate(now / SECOND)
    built["Message-ID"] = f"<{message.id}@{sender.rpartition('@')[2]}>"
    built["Auto-Submitted"] = "auto-generated"
    built.set_content(message.text)
    return built


def open_mail(smtp_url: str, folder: str, sender: str, organization: str, now: Clock) -> Mail:
    """The mail of the settings: an SMTP server, a folder, or none.  Raises ValueError, with a message for the operator."""
    if not smtp_url and not folder:
        return NoMail()
    if smtp_url and folder:
        raise ValueError("FHIR_SERVER_SMTP_URL and FHIR_SERVER_MAIL_FOLDER are both set; set one of them.")
    try:
        address = addresses.parse(sender)
    except ValueError:
        raise ValueError("FHIR_SERVER_MAIL_FROM must be the e-mail address from which the server sends.") from None
    if folder:
        return FolderMail(Path(folder), address, organization, now)
    return SmtpMail(SmtpServer.parse(smtp_url), address, organization, now)
