"""Removes from a text what its readers on the forge do not see, and counts it: HTML comments, hidden characters."""

import re
import unicodedata
from bisect import bisect_right
from collections.abc import Iterator

from app.domain import markdown_blocks
from app.domain.markdown_blocks import Lines

_LONGEST_PARSED = 65_536  # characters; in a longer text, code is searched for hidden pieces like everything else
_BEFORE_BLOCK = re.compile(r"[ \t>*+\-\d.)]{0,40}")  # marks of lists and quotations; a block of HTML may follow them
_CANDIDATE = re.compile(
    r"(?P<comment><!--)"
    r"|(?P<span>(?<![`\\])(?P<ticks>`+)(?:(?!<!--)[^`\n])+(?P=ticks)(?!`))"  # code, shown as it is
    r"|<(?P<name>style|script|template|noscript|title)\b[^>]{0,500}>"
    r"|(?P<link>^ {0,3}\[[^\]\n]{1,200}\]:[ \t]*(?:#|<>)[ \t]+(?:\([^\n]*\)|\"[^\n]*\"|'[^\n]*')[ \t]*$)",  # to nowhere
    re.MULTILINE | re.IGNORECASE,
)
_BLANK_LINE = re.compile(r"\n[ \t]*\n")
_HTML_BLOCK = re.compile(rf"^{_BEFORE_BLOCK.pattern}<[a-zA-Z/?!](?!--)", re.MULTILINE)
_DIRECTION = frozenset("\u200e\u200f\u061c\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_BLANK = frozenset(
    "\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u2800\u3164\uffa0"  # letters and marks that show nothing
    + "".join(map(chr, (*range(0xFE00, 0xFE0E), *range(0xE0100, 0xE01F0))))  # variants, except those of emoji
)


def clean(text: str) -> str:
    """The text that a reader of the issue sees. Line ends become \\n.

    Left out: HTML comments and elements that browsers do not show, links to nowhere, control characters, zero-width
    and direction characters. Fenced code stays as it is.
    """
    return printable(_Scanner(_unix(text)).visible())


def printable(text: str) -> str:
    """Text without control and format characters, for where HTML means nothing. Line ends become \\n."""
    return "".join(c for c in _unix(text) if not _is_hidden(c))


def hidden(text: str) -> tuple[str, ...]:
    """What `clean` leaves out of a text, counted: ("2 HTML comments", "1 direction character")."""
    scanner = _Scanner(_unix(text))
    gone = [c for c in scanner.visible() if _is_hidden(c)]
    direction = sum(c in _DIRECTION for c in gone)
    counts = (
        ("HTML comment", "HTML comments", scanner.comments),
        ("piece of HTML that is not shown", "pieces of HTML that are not shown", scanner.elements),
        ("direction character", "direction characters", direction),
        ("invisible character", "invisible characters", len(gone) - direction),
    )
    return tuple(f"{count} {one if count == 1 else many}" for one, many, count in counts if count)


def one_line(text: str, longest: int = 200) -> str:
    """A title: cleaned, on one line, cut at `longest` characters."""
    line = " ".join(clean(text).split())
    return line if len(line) <= longest else line[: longest - 1].rstrip() + "…"


def _unix(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _is_hidden(c: str) -> bool:
    return c in _BLANK or (c not in "\n\t" and unicodedata.category(c) in ("Cc", "Cf", "Cs", "Co"))


class _Scanner:
    """Goes through a text once, from left to right. Time: linear in its length, whatever the text holds."""

    def __init__(self, text: str) -> None:
        self.comments = self.elements = 0
        self._text = text
        self._fences, self._html = _code_and_html(text)
        self._has_html = bool(_HTML_BLOCK.search(text))
        self._comment_end = self._paragraph_end = -1  # of the latest candidates, so that nothing is searched twice
        self._unclosed: set[str] = set()  # names of elements that nothing closes any more

    def visible(self) -> str:
        """The text without comments and elements that are not shown."""
        self.comments = self.elements = 0
        kept, at = [], 0
        for begin, end in self._hidden_ranges():
            kept.append(self._text[at:begin])
            at = end
        return "".join([*kept, self._text[at:]])

    def _hidden_ranges(self) -> Iterator[tuple[int, int]]:
        at = 0
        while found := _CANDIDATE.search(self._text, at):
            begin, at = found.start(), found.end()
            if fence := self._fences.around(begin):
                at = fence[1]
            elif found["span"]:
                at = begin + len(found["ticks"]) if begin in self._html else at
            elif (end := self._end(found)) is not None:
                yield begin, end
                at = end

    def _end(self, found: re.Match[str]) -> int | None:
        """Where the hidden piece that begins here ends. None if readers see it as text."""
        if found["comment"]:
            end = self._end_of_comment(found.start())
            self.comments += end is not None
        else:
            end = found.end() if found["link"] else self._end_of_element(found["name"].lower(), found.end())
            self.elements += end is not None
        return end

    def _end_of_comment(self, begin: int) -> int | None:
        """An open comment at the start of a block reaches to the end, and so does every one in a text with HTML blocks.

        Elsewhere a comment ends in its paragraph, or it is no comment.
        """
        text = self._text
        if self._comment_end < begin + 4:
            self._comment_end = self._find_outside_code("-->", begin + 4)
        if self._paragraph_end < begin:
            blank = _BLANK_LINE.search(text, begin)
            self._paragraph_end = min(blank.start() if blank else len(text), self._fences.next_after(begin, len(text)))
        line = text.rfind("\n", max(0, begin - 41), begin) + 1 or max(0, begin - 41)
        is_block = self._has_html or bool(_BEFORE_BLOCK.fullmatch(text, line, begin))
        return min(self._comment_end + 3, len(text)) if is_block or self._comment_end <= self._paragraph_end else None

    def _find_outside_code(self, mark: str, at: int) -> int:
        while (found := self._text.find(mark, at)) >= 0:
            fence = self._fences.around(found)
            if fence is None:
                return found
            at = fence[1]
        return len(self._text) + 1

    def _end_of_element(self, name: str, begin: int) -> int | None:
        if name in self._unclosed:
            return None
        close = re.compile(rf"</{name}\s*>", re.IGNORECASE).search(self._text, begin)
        self._unclosed |= set() if close else {name}
        return close.end() if close else None


class _Ranges:
    """Disjoint ranges of characters, in order."""

    def __init__(self, ranges: list[tuple[int, int]]) -> None:
        self._ranges, self._starts = ranges, [start for start, _ in ranges]

    def __contains__(self, at: int) -> bool:
        return self.around(at) is not None

    def around(self, at: int) -> tuple[int, int] | None:
        index = bisect_right(self._starts, at) - 1
        return self._ranges[index] if index >= 0 and at < self._ranges[index][1] else None

    def next_after(self, at: int, default: int) -> int:
        index = bisect_right(self._starts, at)
        return self._starts[index] if index < len(self._starts) else default


def _code_and_html(text: str) -> tuple[_Ranges, _Ranges]:
    """The fenced code and the raw HTML of a text. Only a text with both hideable pieces and marks of code is parsed."""
    has_both = ("<" in text or "]:" in text) and ("`" in text or "~~~" in text)
    if len(text) > _LONGEST_PARSED or not has_both:
        return _Ranges([]), _Ranges([])
    blocks = markdown_blocks.parse(text)
    starts = [0, *(match.end() for match in re.finditer("\n", text)), len(text) + 1]
    return _ranges(blocks.fences, starts), _ranges(blocks.html, starts)


def _ranges(lines: Lines, starts: list[int]) -> _Ranges:
    return _Ranges([(starts[first], starts[end] - 1) for first, end in zip(lines.starts, lines.ends, strict=True)])
