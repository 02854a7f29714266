"""Labels from free text (step 11 of docs/policy.md, "How a resource is labeled")."""

from __future__ import annotations

from fhir_server.consent.labeling_run import LabelingRun


def read_free_text(run: LabelingRun) -> None:
    """Step 11: keywords in free text, the narrative excepted."""
    for mention in run.mentions:
        if not mention.text or not mention.path or mention.path[0] in ("text", "meta"):
            continue
        if labels := run.codes.labels_in_text(mention.text):
            run.parts.add(mention.path, labels)
