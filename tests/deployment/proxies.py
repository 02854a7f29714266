"""Runs nginx and Caddy with the configurations of ``deploy/`` in front of a real server, on loopback.

What a test has to change of a configuration are names of files, hosts and ports, and the length of three clocks.  Each change must
find its text, so that a renamed line fails here.
"""

from __future__ import annotations

import os
import re
import socket
import ssl
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path

import httpx
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.deployment.programs import program
from tests.mongo.mongod import die_with_parent
from tests.ports import reserved_port
from tests.waiting import HANG, wait_until

ROOT = Path(__file__).parents[2]
NGINX = ROOT / "deploy/nginx/fhir-server.conf"
CADDY = ROOT / "deploy/caddy/Caddyfile"


def changed(text: str, changes: Iterable[tuple[str, str]]) -> str:
    """``text`` with each regular expression replaced wherever it matches.  Raises AssertionError if one does not match."""
    for pattern, replacement in changes:
        text, found = re.subn(pattern, replacement, text)
        assert found, f"The configuration has nothing like {pattern}."
    return text


def make_certificate(folder: Path) -> tuple[Path, Path]:
    """Write a certificate for ``localhost`` that signs itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now - timedelta(days=1), now + timedelta(days=9))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    files = folder / "certificate.pem", folder / "key.pem"
    files[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    plain = serialization.NoEncryption()
    files[1].write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain))
    return files


class Proxy:
    """A running proxy with its folder: ``name`` is ``nginx`` or ``caddy``; the server behind it listens on ``upstream``.

    ``quick``: the clocks for heads, bodies and, with Caddy, idle connections have one second, for tests that wait for their end.
    """

    def __init__(self, name: str, folder: Path, upstream: int, *, quick: bool = False) -> None:
        self.name, self.folder, self.port = name, folder, reserved_port()
        self.certificate, self._key = make_certificate(folder)
        command = self._nginx(upstream, quick) if name == "nginx" else self._caddy(upstream, quick)
        environment = {**os.environ, "HOME": str(folder), "XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}
        with (folder / "output.log").open("wb") as output:
            self._process = subprocess.Popen(command, cwd=folder, stdout=output, stderr=output, env=environment, preexec_fn=die_with_parent)

    def _nginx(self, upstream: int, quick: bool) -> list[str]:
        site = changed(
            NGINX.read_text(encoding="utf-8"),
            [
                (r"listen 443 ", f"listen 127.0.0.1:{self.port} "),
                (r"listen \[::\]:443 ssl http2;", ""),
                (r"127\.0\.0\.1:8000", f"127.0.0.1:{upstream}"),
                (r"fhir\.example\.org;", "localhost;"),
                (r"/etc/ssl/\S+\.pem", str(self.certificate)),
                (r"/etc/ssl/private/\S+\.key", str(self._key)),
                (r"/var/log/nginx/", f"{self.folder}/"),
                *([(r"(client_(?:header|body)_timeout +)\d+s", r"\g<1>1s")] if quick else []),
            ],
        )
        folders = "".join(
            f"{kind}_temp_path {self.folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )  # fmt: skip
        main = self.folder / "nginx.conf"
        main.write_text(
            f"daemon off; master_process off; pid {self.folder}/pid; error_log stderr crit;\n"
            f"events {{ worker_connections 1024; }}\nhttp {{ {folders}\n{site}\n}}\n",
            encoding="utf-8",
        )
        checked = subprocess.run([program("nginx"), "-t", "-c", main], capture_output=True, text=True, check=False)
        assert checked.returncode == 0 and "[warn]" not in checked.stderr, checked.stderr
        return [program("nginx"), "-c", str(main)]

    def _caddy(self, upstream: int, quick: bool) -> list[str]:
        site = changed(
            CADDY.read_text(encoding="utf-8"),
            [
                (r"\{\$SITE:\S+\} \{", f"https://localhost:{self.port} {{\n\tbind 127.0.0.1\n\ttls {self.certificate} {self._key}"),
                (r"\{\$UPSTREAM:\S+\}", f"127.0.0.1:{upstream}"),
                (r"\n\tlog \{", f"\n\tlog {{\n\t\toutput file {self.folder}/caddy.log"),
                *([(r"(read_header|read_body|idle) \d+s", r"\g<1> 1s")] if quick else []),
            ],
        )
        main = self.folder / "Caddyfile"
        main.write_text(site, encoding="utf-8")
        return [program("caddy"), "run", "--config", str(main), "--adapter", "caddyfile"]

    @cached_property
    def context(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.certificate))

    def client(self, source: str = "127.0.0.1") -> httpx.Client:
        """A client of the proxy with the network address ``source``."""
        transport = httpx.HTTPTransport(verify=self.context, local_address=source)
        return httpx.Client(transport=transport, base_url=f"https://localhost:{self.port}", timeout=HANG)

    def connect(self) -> ssl.SSLSocket:
        """A connection on which nothing was sent yet."""
        plain = socket.create_connection(("127.0.0.1", self.port), timeout=HANG)
        return self.context.wrap_socket(plain, server_hostname="localhost")

    def await_answer(self) -> None:
        def answers() -> bool:
            assert self._process.poll() is None, (self.folder / "output.log").read_text(encoding="utf-8")
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", self.port)) == 0

        wait_until(answers, f"{self.name} accepts connections")

    def logs(self) -> str:
        """All that the proxy has written to its logs and to its output."""
        return "".join(path.read_text(encoding="utf-8") for path in sorted(self.folder.glob("*.log")))

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(HANG)


@contextmanager
def running(name: str, folder: Path, upstream: int, *, quick: bool = False) -> Iterator[Proxy]:
    """A proxy in front of the server at port ``upstream``, which may be absent."""
    folder.mkdir()
    proxy = Proxy(name, folder, upstream, quick=quick)
    try:
        proxy.await_answer()
        yield proxy
    finally:
        proxy.stop()
