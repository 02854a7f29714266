"""The commands of docs/apps.md work in order, with the demo server running."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

from fhir_server.search.limits import MAX_CONDITIONS, MAX_CONTAINED, MAX_PAIRS, MAX_SORT_KEYS, MAX_VALUES
from fhir_server.search.result_parameters import MAX_COUNT
from fhir_server.smart.authorize import endpoint
from fhir_server.smart.clients import registration_routes
from fhir_server.smart.core import context, scopes
from fhir_server.smart.tokens import failure_limit

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/apps.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```sh\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def test_every_command_in_the_apps_guide_works(environment: dict[str, str], origin: str) -> None:
    script = "set -eu\n" + "\nprintf '\\n%%\\n'\n".join(BLOCKS)
    assert "ORIGIN=http://127.0.0.1:8000" in script
    script = script.replace("http://127.0.0.1:8000", origin).replace(".venv/bin/", f"{Path(sys.executable).parent}/")
    done = subprocess.run(["sh", "-c", script], env=environment, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    answers = [answer.strip() for answer in done.stdout.split("\n%\n")]
    assert len(answers) == len(BLOCKS) == 12
    assert '"authorization_endpoint"' in answers[1] and '"CapabilityStatement"' in answers[1]
    assert json.loads(answers[3])["client_name"] == "Pressure log"
    assert '"active": true' in answers[6] or '"active":true' in answers[6]
    assert '"id":"child"' in answers[8] or '"id": "child"' in answers[8]
    assert json.loads(answers[9])["scope"] == "system/Patient.rs"
    assert answers[10].endswith("%PDF-1.7 a letter") and '"contentType":"application/pdf"' in answers[10]
    assert '"type":"batch-response"' in answers[11] and '"id":"child"' in answers[11]


def test_limits_in_the_apps_guide_match_the_server() -> None:
    stated = [
        f"`_count` of {MAX_COUNT}",
        f"{MAX_PAIRS} parameters, {MAX_VALUES} values, {MAX_CONDITIONS} different conditions, {MAX_SORT_KEYS} sort keys",
        f"{MAX_CONTAINED} characters for `:contains`",
        f"{scopes.MAX_SCOPES} scopes",
        f"{endpoint.PER_ADDRESS} authorization requests a minute",
        f"{failure_limit.MAX_FAILURES} failed client authentications a minute",
        f"{registration_routes.MAX_REGISTRATIONS_PER_HOUR} registrations an hour",
        f"{context.REFRESH_LIFE // context.DAY} days, anew at every use",
        f"the grant {context.GRANT_LIFE // (365 * context.DAY)} years in all",
        f"at most {context.SESSION_LIFE // context.HOUR} hours",
    ]
    assert [words for words in stated if words not in PAGE] == []


def test_links_in_the_apps_guide_resolve() -> None:
    linked = re.findall(r"\]\((?!https?:)([^)#]+)[^)]*\)", PAGE)  # web addresses aside
    assert linked and all((ROOT / "docs" / path).exists() for path in linked)
