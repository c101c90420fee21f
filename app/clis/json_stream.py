"""Parses JSON objects from a stream of bytes: one per line, in an array, or spread over lines. Skips noise."""

import json
from collections.abc import Iterator
from copy import copy
from typing import Any

Event = dict[str, Any]
LONGEST = 16 << 20  # bytes; a longer line or document is dropped, which bounds the memory of a parser


class Events:
    """Each object is returned once. An unfinished line or document is kept, up to `longest` bytes."""

    def __init__(self, longest: int = LONGEST) -> None:
        self._longest = longest
        self._line = bytearray()
        self._searched = 0
        self._too_long = False
        self._document: list[bytes] | None = None
        self._held = 0
        self._joined = True
        self.skipped = 0  # lines that hold no JSON object
        self.cut = False  # whether the output ends inside an object; known after `end`

    def feed(self, data: bytes) -> Iterator[Event]:
        """The objects that are complete now."""
        self._line += data
        while (at := self._line.find(b"\n", self._searched)) >= 0:
            line, self._searched = bytes(self._line[:at]), 0
            del self._line[: at + 1]
            yield from self._parse_line(line)
        self._searched = len(self._line)
        if self._searched > self._longest:
            self._line.clear()
            self._searched, self._too_long = 0, True

    def end(self) -> Iterator[Event]:
        """The objects in an unfinished last line or array. Call it when the output has ended."""
        rest, self._searched = bytes(self._line), 0
        self._line.clear()
        if rest.strip():
            yield from self._parse_line(rest, last=True)
        if self._document is not None:
            self.cut, self._document = True, None

    def copy(self) -> "Events":
        """An independent copy."""
        clone = copy(self)
        clone._line, clone._document = self._line[:], self._document and [*self._document]
        return clone

    def _parse_line(self, line: bytes, last: bool = False) -> Iterator[Event]:
        if self._too_long:  # the rest of a line that was dropped
            self._too_long, self.skipped = False, self.skipped + 1
            return
        word = line.removeprefix(b"\xef\xbb\xbf").strip()
        if self._document is not None:
            yield from self._parse_in_document(line, word)
        elif word in (b"{", b"["):
            self._document, self._held, self._joined = [word], 1, True
        elif word[:1] in (b"{", b"["):
            yield from self._parse_value(word, last)
        elif word:
            self.skipped += 1

    def _parse_in_document(self, line: bytes, word: bytes) -> Iterator[Event]:
        """A line inside a document.

        An object on a line of its own is an element of an array if a comma separates it from the next one. Otherwise
        the document was none, and its lines are read one by one.
        """
        array = self._document == [b"["]
        alone = parsed(word.rstrip(b",")) if word[:2] == b'{"' and (array or not line[:1].isspace()) else None
        if not isinstance(alone, dict):
            yield from self._add_to_document(line, word)
            return
        if not array or not self._joined:
            self._document = None
        self._joined = word[-1:] == b","
        yield alone

    def _parse_value(self, word: bytes, last: bool) -> Iterator[Event]:
        value = parsed(word)
        if value is None:
            self.skipped, self.cut = self.skipped + 1, self.cut or last
            value = list(_complete_elements(word)) if word[:1] == b"[" else None
        yield from _objects(value)

    def _add_to_document(self, line: bytes, word: bytes) -> Iterator[Event]:
        """A document ends with a line `}` or `]` without indentation."""
        document = self._document or []
        self._held += len(line) + 1
        if self._held > self._longest:
            self._document, self.skipped = None, self.skipped + 1
            return
        document.append(line)
        if word == {b"{": b"}", b"[": b"]"}[document[0]] and not line[:1].isspace():
            self._document = None
            yield from _objects(parsed(b"\n".join(document)))


def parsed(text: bytes) -> Any:
    """The value of a JSON text, or None if it is not JSON."""
    try:
        return json.loads(text.decode("utf-8", "replace"))
    except (ValueError, RecursionError):
        return None


def _objects(value: Any) -> Iterator[Event]:
    for one in value if isinstance(value, list) else (value,):
        if isinstance(one, dict):
            yield one


def _complete_elements(word: bytes) -> Iterator[Event]:
    """The complete elements of a truncated array."""
    text, at, decoder = word.decode("utf-8", "replace"), 1, json.JSONDecoder()
    while at < len(text):
        try:
            value, at = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            return
        yield from _objects(value)
        while at < len(text) and text[at] in ", \t\r\n":
            at += 1
