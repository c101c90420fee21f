"""JSON objects out of bytes as they come: one a line, in an array, or spread over lines. Noise is passed over."""

import json
from collections.abc import Iterator
from copy import copy
from typing import Any

Event = dict[str, Any]
LONGEST = 16 << 20  # a line or document beyond this is dropped, so that no output can eat the memory


class Events:
    """Feed it; it gives each object once. What is begun and not finished is kept, up to LONGEST."""

    def __init__(self) -> None:
        self._line = bytearray()
        self._searched = 0
        self._too_long = False
        self._document: list[bytes] | None = None
        self._held = 0
        self._joined = True
        self.passed_over = 0  # lines that were no JSON of ours
        self.cut = False  # the output ends within something; known after `end`

    def feed(self, data: bytes) -> Iterator[Event]:
        """The objects that are whole by now."""
        self._line += data
        while (at := self._line.find(b"\n", self._searched)) >= 0:
            line, self._searched = bytes(self._line[:at]), 0
            del self._line[: at + 1]
            yield from self._read(line)
        self._searched = len(self._line)
        if self._searched > LONGEST:
            self._line.clear()
            self._searched, self._too_long = 0, True

    def end(self) -> Iterator[Event]:
        """The output is over: what its last line, or an array without its end, still holds."""
        rest, self._searched = bytes(self._line), 0
        self._line.clear()
        if rest.strip():
            yield from self._read(rest, last=True)
        if self._document is not None:
            self.cut, self._document = True, None

    def twin(self) -> "Events":
        """One that may be fed on without us."""
        twin = copy(self)
        twin._line, twin._document = self._line[:], self._document and [*self._document]
        return twin

    def _read(self, line: bytes, last: bool = False) -> Iterator[Event]:
        if self._too_long:  # the tail of one that was dropped
            self._too_long, self.passed_over = False, self.passed_over + 1
            return
        word = line.removeprefix(b"\xef\xbb\xbf").strip()
        if self._document is not None:
            yield from self._within(line, word)
        elif word in (b"{", b"["):
            self._document, self._held, self._joined = [word], 1, True
        elif word[:1] in (b"{", b"["):
            yield from self._whole(word, last)
        elif word:
            self.passed_over += 1

    def _within(self, line: bytes, word: bytes) -> Iterator[Event]:
        """Within what seems to be a document. Objects on lines of their own are elements of an array, if commas stand
        between them; else it was no document."""
        array = self._document == [b"["]
        alone = parsed(word.rstrip(b",")) if word[:2] == b'{"' and (array or not line[:1].isspace()) else None
        if not isinstance(alone, dict):
            yield from self._go_on(line, word)
            return
        if not array or not self._joined:
            self._document = None
        self._joined = word[-1:] == b","
        yield alone

    def _whole(self, word: bytes, last: bool) -> Iterator[Event]:
        value = parsed(word)
        if value is None:
            self.passed_over, self.cut = self.passed_over + 1, self.cut or last
            value = list(_salvaged(word)) if word[:1] == b"[" else None
        yield from _objects(value)

    def _go_on(self, line: bytes, word: bytes) -> Iterator[Event]:
        """A document's last line stands at the margin, `}` or `]`."""
        document = self._document or []
        self._held += len(line) + 1
        if self._held > LONGEST:
            self._document, self.passed_over = None, self.passed_over + 1
            return
        document.append(line)
        if word == {b"{": b"}", b"[": b"]"}[document[0]] and not line[:1].isspace():
            self._document = None
            yield from _objects(parsed(b"\n".join(document)))


def parsed(text: bytes) -> Any:
    """What JSON says, or None."""
    try:
        return json.loads(text.decode("utf-8", "replace"))
    except (ValueError, RecursionError):
        return None


def _objects(value: Any) -> Iterator[Event]:
    for one in value if isinstance(value, list) else (value,):
        if isinstance(one, dict):
            yield one


def _salvaged(word: bytes) -> Iterator[Event]:
    """The whole elements of an array that was cut."""
    text, at, decoder = word.decode("utf-8", "replace"), 1, json.JSONDecoder()
    while at < len(text):
        try:
            value, at = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            return
        yield from _objects(value)
        while at < len(text) and text[at] in ", \t\r\n":
            at += 1
