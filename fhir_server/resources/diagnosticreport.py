"""DiagnosticReport: references to labeled results are withheld, not the whole report (http://hl7.org/fhir/R4/diagnosticreport.html)."""

from fhir_server.resources._declaration import ResourceType

TYPE = ResourceType(
    "DiagnosticReport",
    "lab",
    by_category={
        "34117-2": "note",
        "51847-2": "note",
        "11506-3": "note",
        "28570-0": "note",
        "11488-4": "note",
        "18842-5": "note",
        "LP29684-5": "imaging",
        "RAD": "imaging",
        "RUS": "imaging",
        "CUS": "imaging",
        "OUS": "imaging",
        "VUS": "imaging",
        "CT": "imaging",
        "NMR": "imaging",
        "NMS": "imaging",
        "XRC": "imaging",
        "RX": "imaging",
        "LP29708-2": "procedure",
        "EC": "procedure",
        "CTH": "procedure",
        "LP7839-6": "lab",
        "LAB": "lab",
    },
    subjects=("subject",),
    inherits_labels_from=("encounter", "basedOn", "specimen"),
    member_references=("result", "imagingStudy", "media.link"),
    hidden_status=frozenset({"registered", "partial", "preliminary"}),
)
