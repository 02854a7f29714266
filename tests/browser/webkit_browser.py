"""WebKitGTK's small browser by its WebDriver, on a display of its own."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from selenium.webdriver import WebKitGTK
from selenium.webdriver.webkitgtk.options import Options
from selenium.webdriver.webkitgtk.service import Service

from tests.browser.engines import DriverBrowser
from tests.waiting import HANG


def mini_browser() -> Path | None:
    """The browser that comes with the library; the driver alone would open another version of it."""
    return next(iter(sorted(Path("/usr/lib").glob("*/webkit2gtk-4.*/MiniBrowser"), reverse=True)), None)


@contextmanager
def webkit(driver: str, display_server: str) -> Iterator[DriverBrowser]:
    binary = mini_browser()
    assert binary, "WebKitGTK's MiniBrowser is missing: run scripts/packages.sh webkit (make test does)."
    command = [display_server, "-displayfd", "1", "-screen", "0", "1280x1024x24", "-nolisten", "tcp"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as display:
        try:
            assert display.stdout
            number = display.stdout.readline().strip()
            assert number, "Xvfb ended before it had a display."
            options = Options()
            options.binary_location = str(binary)
            options.add_argument("--automation")
            software = {"GDK_BACKEND": "x11", "WEBKIT_DISABLE_COMPOSITING_MODE": "1", "LIBGL_ALWAYS_SOFTWARE": "1"}
            browser = WebKitGTK(options=options, service=Service(driver, env=os.environ | software | {"DISPLAY": f":{number}"}))
            browser.set_page_load_timeout(HANG)
            yield DriverBrowser(browser)
            browser.quit()
        finally:
            display.terminate()
            display.wait(HANG)
