"""XML files: read without document types, which can define entities that grow without bound; written so that all is kept."""

import re
from collections.abc import Mapping
from pathlib import Path
from xml.etree import ElementTree

from jaxvision.errors import DataError, shown
from jaxvision.formats.files import content, regular

DEEPEST = 100
"""Levels of elements in a file; those of annotations have six at most."""
BEGINNING = 1 << 16
ROOT = re.compile(rb"(?:\xef\xbb\xbf)?(?:\s|<\?[^>]*>|<!--.*?-->)*<([A-Za-z_][A-Za-z0-9_.-]*)", re.DOTALL)
"""What may stand before the root element, and its name."""
UNWRITABLE = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that no XML file has, escaped or not (XML 1.0, 2.2)."""
ESCAPED = re.compile('[&<>"\r\n\t]')
REPLACED = "\N{REPLACEMENT CHARACTER}"


class _Plain(ElementTree.TreeBuilder):
    """Builder of a shallow tree, without a document type, which can define entities that grow without bound or read files."""

    depth = 0

    def start(self, tag: str, attrs: dict[str, str]) -> ElementTree.Element:
        self.depth += 1
        if self.depth > DEEPEST:
            raise ValueError(f"its elements nest more than {DEEPEST} levels deep")
        return super().start(tag, attrs)

    def end(self, tag: str) -> ElementTree.Element:
        self.depth -= 1
        return super().end(tag)

    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        raise ValueError(f"it has a DOCTYPE ({name}), which is not read")


def parsed(data: bytes, root: str, what: str) -> ElementTree.Element:
    """The root of a file's content.

    Raises:
      ValueError: for what is no XML, and for another root; `what` is what it should be.
    """
    parser = ElementTree.XMLParser(target=_Plain())
    try:
        parser.feed(data)
        found = parser.close()
    except (ElementTree.ParseError, LookupError, MemoryError) as error:  # LookupError: an encoding that Python lacks
        raise ValueError(f"is no XML: {error}") from None
    if found.tag != root:
        raise ValueError(f"is no {what}: its root is <{shown(found.tag)[1:-1]}>, allowed is <{root}>")
    return found


def read(path: Path, root: str, what: str, most: int | None = None) -> ElementTree.Element:
    """The root of a file of at most `most` bytes. Raises DataError, naming the file, for another; OSError as `content`."""
    data = content(path, most)
    try:
        return parsed(data, root, what)
    except ValueError as error:
        raise DataError(f"{path} {error}") from None


def root_tag(path: Path) -> str | None:
    """The name of the root element, if it stands in the first `BEGINNING` bytes; None for what looks like no XML."""
    with regular(path) as file:
        found = ROOT.match(file.read(BEGINNING))
    return None if found is None else found[1].decode("ascii")


def is_writable(text: str) -> bool:
    """Whether XML can hold the text."""
    return UNWRITABLE.search(text) is None


def writable(text: str) -> str:
    """The text with a replacement character for each that XML can't hold."""
    return UNWRITABLE.sub(REPLACED, text)


def escaped(text: str) -> str:
    """The text as a file has it, between tags or in quotes; a reader gets back every character of it."""
    return ESCAPED.sub(lambda found: f"&#{ord(found[0])};", writable(text))


def opening(tag: str, attributes: Mapping[str, str]) -> str:
    """`tag name="value" ...`, as it stands between brackets."""
    return " ".join([tag, *(f'{name}="{escaped(value)}"' for name, value in attributes.items())])


def line(depth: int, tag: str, text: str) -> str:
    """`<tag>text</tag>`, two spaces before it for each level."""
    return f"{'  ' * depth}<{tag}>{escaped(text)}</{tag.split(' ')[0]}>\n"
