"""In which case the generic run notices each planted leak, so that its test begins there: most requests of other cases notice nothing.

A change of what is drawn may move a leak to another case.  The test then looks through all cases, which takes longer, and
``python -m tests.noninterference.noticed_in`` finds the cases anew.  It takes about ten minutes.
"""

from __future__ import annotations

import json
from pathlib import Path

_FILE = Path(__file__).with_suffix(".json")
NOTICED_IN: dict[str, int] = json.loads(_FILE.read_text(encoding="utf-8"))
"""Name of the leak -> number of the case; the leaks that are not named are noticed in the first one."""


def main() -> None:
    from tests.noninterference.test_planted_leaks import LEAKS, noticed_by

    found = {leak.name: noticed.case.seed for leak in LEAKS if (noticed := noticed_by(leak)) is not None}
    cases = {name: seed for name, seed in sorted(found.items()) if seed}
    _FILE.write_text(json.dumps(cases, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
