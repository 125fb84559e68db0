"""XML of label programs: escaping and parsing."""

from __future__ import annotations

import os
from xml.etree import ElementTree
from xml.sax.saxutils import quoteattr

from htsat_sed.annotations.text import CONTROL, escape, read_text
from htsat_sed.errors import AnnotationError

_NOT_IN_XML = CONTROL + r"\ufffe\uffff"


def held(text: str) -> str:
    """Escape characters that XML cannot represent, see `text`."""
    return escape(text, _NOT_IN_XML)


def quoted(text: str) -> str:
    """A text as the value of an attribute, with quotes."""
    return quoteattr(held(text))


def read_xml(path: str | os.PathLike[str], root: str) -> ElementTree.Element:
    """Read an XML file with a given root element.

    Raises:
        AnnotationError: it cannot be read, is no XML, defines entities, or has another root element.
    """
    text = read_text(path)
    if "<!ENTITY" in text:  # nested entities may expand without limit
        raise AnnotationError(path, "defines entities, which are not read")
    try:
        # As bytes, since the declared encoding may differ from the one used for decoding.
        found = ElementTree.fromstring(text.encode("utf-8"), ElementTree.XMLParser(encoding="utf-8"))
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise AnnotationError(path, f"is not XML: {error}") from error
    if found.tag != root:
        raise AnnotationError(path, f"is not {root} but {found.tag:.60}")
    return found
