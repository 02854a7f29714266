"""Makes the PDF of a record.  The same content makes the same bytes."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from io import BytesIO
from typing import Any, Final
from xml.sax.saxutils import escape

from reportlab.lib.pagesizes import A4
from reportlab.lib.styles import ParagraphStyle
from reportlab.lib.units import mm
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.cidfonts import UnicodeCIDFont
from reportlab.pdfbase.ttfonts import TTFont
from reportlab.platypus import Paragraph, SimpleDocTemplate

from fhir_server.record_files.content import Content, Entry
from fhir_server.record_files.scripts import ASIAN, BASE, BOX, KOREAN, is_printed, runs

_UNPRINTED: Final = f"Some characters of this record cannot be printed in a PDF; each is shown as {BOX}. The page (HTML) shows them."
_MARGIN: Final = 18 * mm
_TEXT: Final = ParagraphStyle("text", fontName=BASE, fontSize=9.5, leading=13.5, spaceAfter=4)
_STYLES: Final = {
    "title": ParagraphStyle("title", _TEXT, fontSize=20, leading=25, spaceAfter=10),
    "chapter": ParagraphStyle("chapter", _TEXT, fontSize=14, leading=18, spaceBefore=16, spaceAfter=4, keepWithNext=1),
    "note": ParagraphStyle("note", _TEXT, backColor="#eef5f7", borderPadding=5, spaceBefore=8, spaceAfter=8),
    "entry": ParagraphStyle("entry", _TEXT, spaceAfter=7),
    "text": _TEXT,
}


def pdf(content: Content) -> bytes:
    """The PDF.  Its title is that of the content."""
    target = BytesIO()
    _glyphs(BASE)
    document = SimpleDocTemplate(
        target, pagesize=A4, invariant=1, title=content.title, lang="en", author="", subject="", creator="", leftMargin=_MARGIN,
        rightMargin=_MARGIN, topMargin=_MARGIN, bottomMargin=_MARGIN,
    )  # fmt: skip
    document.build(list(_story(content)), onFirstPage=_number, onLaterPages=_number)
    return target.getvalue()


@cache
def _glyphs(font: str) -> frozenset[int] | None:
    """Make a font known, when it is first needed.  Returns its code points; None for one that only readers of the file have."""
    if font == KOREAN:
        pdfmetrics.registerFont(UnicodeCIDFont(font))
        return None
    made = TTFont(font, BytesIO((files("fhir_server.record_files") / "fonts" / f"{font}.ttf").read_bytes()))
    pdfmetrics.registerFont(made)
    return frozenset(made.face.charToGlyph)


def _covers(font: str, code: int) -> bool:
    glyphs = _glyphs(font)
    return glyphs is None or code in glyphs


def _story(content: Content) -> Iterator[Paragraph]:
    yield _paragraph("title", _marked(content.title))
    for label, text in content.facts:
        if text:
            yield _paragraph("text", f"{_marked(label)}: {_marked(text)}")
    unprinted = not all(is_printed(text, _covers) for text in _texts(content))
    for note in (*content.notes, *((_UNPRINTED,) if unprinted else ())):
        yield _paragraph("note", _marked(note))
    for part in content.parts:
        yield _paragraph("chapter", _marked(part.title))
        for entry in part.entries:
            yield _paragraph("entry", _entry(entry))
        if not part.entries:
            yield _paragraph("text", _marked(part.empty))


def _texts(content: Content) -> Iterator[str]:
    yield from (text for _, text in content.facts)
    for entry in (entry for part in content.parts for entry in part.entries):
        yield from (entry.what, *entry.details)


def _entry(entry: Entry) -> str:
    lines = [f'<font size="11">{_marked(entry.what)}</font>', *(_marked(text) for text in (entry.day, *entry.details))]
    return "<br/>".join(filter(None, [*lines, f'<font color="#4a5d65" size="8">{_marked(entry.name)}</font>']))


def _marked(text: str) -> str:
    """A text in ReportLab's markup, with the font of each script."""
    return "".join(escape(part) if font == BASE else f'<font name="{font}">{escape(part)}</font>' for font, part in runs(text, _covers))


def _paragraph(style: str, marked: str) -> Paragraph:
    """A paragraph.  One with Chinese, Japanese or Korean breaks between characters, because nothing is between the words."""
    is_asian = any(f'name="{font}"' in marked for font in (ASIAN, KOREAN))
    return Paragraph(marked, ParagraphStyle(style, _STYLES[style], wordWrap="CJK") if is_asian else _STYLES[style])


def _number(canvas: Any, document: Any) -> None:
    """The page's number at its foot."""
    canvas.setFont(BASE, 8)
    canvas.drawCentredString(A4[0] / 2, 10 * mm, str(document.page))
