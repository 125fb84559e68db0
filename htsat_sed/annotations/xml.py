"""XML of label programs: texts that it can hold, and its elements."""

from __future__ import annotations

import os
from xml.etree import ElementTree
from xml.sax.saxutils import quoteattr

from htsat_sed.annotations.text import CONTROL, escape, read_text
from htsat_sed.errors import AnnotationError

_NOT_IN_XML = CONTROL + r"\ufffe\uffff"


def held(text: str) -> str:
    """A text without the characters that XML cannot hold, see `text`."""
    return escape(text, _NOT_IN_XML)


def quoted(text: str) -> str:
    """A text as the value of an attribute, its quotes included."""
    return quoteattr(held(text))


def read_xml(path: str | os.PathLike[str], root: str) -> ElementTree.Element:
    """Read an XML file whose outermost element has this name.

    Raises:
        AnnotationError: it cannot be read, is no XML, defines entities, or has another outermost element.
    """
    text = read_text(path)
    if "<!ENTITY" in text:  # they unfold without end
        raise AnnotationError(path, "defines entities, which are not read")
    try:
        # As bytes: a text may name another encoding than that in which it was decoded.
        found = ElementTree.fromstring(text.encode("utf-8"), ElementTree.XMLParser(encoding="utf-8"))
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise AnnotationError(path, f"is no XML: {error}") from error
    if found.tag != root:
        raise AnnotationError(path, f"is no {root} but {found.tag:.60}")
    return found
