"""Labels from free text (step 11 of docs/policy.md, "How a resource is labeled").

Words label the part that they stand in.  Text that cannot be read, such as a PDF, gives the label UNREAD: who may see it depends on
the data class of the document.
"""

from __future__ import annotations

from typing import Any

from fhir_server.consent.element_reading import Value
from fhir_server.consent.labeling_run import SUMMARY, LabelingRun
from fhir_server.consent.text_reading import read_attachment, read_html
from fhir_server.consent.visibility_classes import UNREAD
from fhir_server.consent.word_search import WordReading


def read_free_text(run: LabelingRun) -> None:
    """Step 11: words in strings, narrative and attachments, and text that cannot be read."""
    for value in run.reading.texts:
        reading = _read(run, value)
        run.possible |= reading.possible
        labels = reading.labels if reading.complete else reading.labels | {UNREAD}
        if not labels:
            continue
        if run.type.name == "Binary":
            run.labels |= labels  # it is nothing but its data
        elif value.part and value.part[0] in SUMMARY and value.part[0] != "contained":
            run.label_part(value.part, labels)
        else:
            run.add_part(value.part, labels)


def _read(run: LabelingRun, value: Value) -> WordReading:
    if value.rule == "unread":
        return _read_attachment(run, value.value)
    if not isinstance(value.value, str):
        return WordReading()
    return read_html(run.codes, value.value) if value.rule == "html" else run.codes.read_text(value.value)


def _read_attachment(run: LabelingRun, value: Any) -> WordReading:
    if isinstance(value, str):  # the data of a Binary
        value = {"data": value, "contentType": run.resource.get("contentType")}
    elif not isinstance(value, dict):
        return WordReading()
    url = value.get("url")
    if "data" not in value and isinstance(url, str) and (url.startswith(run.labeler.base + "/") or "://" not in url):
        value = {name: member for name, member in value.items() if name != "url"}  # a resource of this server, with its own labels
    return read_attachment(run.codes, value)
