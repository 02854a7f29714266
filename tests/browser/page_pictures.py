"""Takes the pictures of ``docs/pages``: ``python -m tests.browser.page_pictures [--all] FOLDER``.

They are taken of the demo, on a phone's width and on a desktop's, from the top of a page to at most :data:`TALLEST` pixels.  With
``--all``, of every page of the record for each account; otherwise those that ``docs/pages`` has.
"""

from __future__ import annotations

import argparse
import tempfile
from base64 import b64decode
from pathlib import Path

from selenium.webdriver import Chrome

from fhir_server.portal.record.sections import SECTIONS
from tests.browser.browser_session import Walk
from tests.browser.conftest import _started
from tests.browser.palette_png import with_palette
from tests.browser.test_pages import record
from tests.demo_server import demo_server

TALLEST = 1_500
WIDTHS = {"phone": 390, "desktop": 1100}
ACCOUNTS = {
    "parent-of-child": ("parent-a", "Charlie"),
    "parent-of-teenager": ("parent-a", "Toni"),
    "adult": ("adult", "Alex"),
    "proxy-standard": ("proxy-standard", "Alex"),
    "proxy-full": ("proxy-full", "Alex"),
}
ACCOUNT_PAGES = {"start": "/", "sharing": "/sharing", "use-a-code": "/accept", "apps": "/apps", "links": "/links", "security": "/account"}
SHOWN = ("overview", "results", "medicines", "visits")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.browser.page_pictures", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--all", action="store_true")
    options = parser.parse_args()
    options.folder.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as store, demo_server(Path(store)) as server, _started(Path(store) / "profile") as chrome:
        for account, (username, name) in ACCOUNTS.items():
            walk = Walk.fresh(chrome, server.origin)
            for page, reach in _pages(walk, username, name, account, options.all).items():
                for width in WIDTHS:
                    if options.all or width == "phone" or page in ("overview", "results", "start"):
                        _sized(chrome, WIDTHS[width])
                        walk.browser.get(reach)
                        (options.folder / f"{account}-{page}-{width}.png").write_bytes(_picture(chrome, WIDTHS[width]))


def _pages(walk: Walk, username: str, name: str, account: str, is_all: bool) -> dict[str, str]:
    """The addresses of the pages by their names in the pictures."""
    home = record(walk, username, name).browser.current_url
    found = {"overview": home} | {section.slug: f"{home}/{section.slug}" for section in SECTIONS}
    values = walk.visit(found["vital-signs"].removeprefix(walk.origin)).all("a.what")
    found["value"] = str(values[0].get_attribute("href")) if values else home
    pages = {page: f"{walk.origin}{path}" for page, path in ACCOUNT_PAGES.items()}
    if is_all:
        return pages | found
    return (pages if account == "adult" else {}) | {page: found[page] for page in (SHOWN if account == "adult" else SHOWN[:1])}


def _sized(chrome: Chrome, width: int) -> None:
    size = {"width": width, "height": 844, "deviceScaleFactor": 1, "mobile": width < 600}
    chrome.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)


def _picture(chrome: Chrome, width: int) -> bytes:
    height = min(TALLEST, int(chrome.execute_script("return document.documentElement.scrollHeight")))
    clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
    taken = chrome.execute_cdp_cmd("Page.captureScreenshot", {"format": "png", "clip": clip, "captureBeyondViewport": True})
    return with_palette(b64decode(taken["data"]))


if __name__ == "__main__":
    main()
