"""Finds the headings, the fenced code and the raw HTML of Markdown text, by line. Wraps markdown-it-py.

Quotations are not entered: text in them is a paragraph here, so a fence in a quotation is no code.
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from markdown_it import MarkdownIt
    from markdown_it.token import Token

LONGEST = 200_000  # characters; a longer text is not parsed. The slowest input of this length took 1.4 s.
_DEEPEST = 100  # nested blocks; deeper ones, and what follows them, are paragraphs
_RULES = ["code", "fence", "hr", "list", "html_block", "heading", "lheading", "paragraph"]


@dataclass(frozen=True)
class Lines:
    """Disjoint ranges of line numbers (from 0), in order."""

    starts: tuple[int, ...] = ()
    ends: tuple[int, ...] = ()  # exclusive

    def __contains__(self, line: object) -> bool:
        return isinstance(line, int) and (at := bisect_right(self.starts, line)) > 0 and line < self.ends[at - 1]


@dataclass(frozen=True)
class Heading:
    """`text` is its last line of text. The line after it is a row of = or - if the heading is `underlined`."""

    text: str
    underlined: bool


@dataclass(frozen=True)
class Blocks:
    """`headings` are those outside lists, by the line of their text. `fences` include the lines of their marks."""

    headings: Mapping[int, Heading] = field(default_factory=dict)
    fences: Lines = Lines()
    html: Lines = Lines()


def parse(text: str) -> Blocks:
    """The blocks of a text whose line ends are \\n. None at all in a text over LONGEST. Time: linear."""
    if len(text) > LONGEST:
        return Blocks()
    tokens = _parser().parse(text)
    return Blocks(
        dict(_headings(tokens)),
        _lines(token for token in tokens if token.type == "fence"),
        _lines(token for token in tokens if token.type == "html_block"),
    )


@cache
def _parser() -> "MarkdownIt":
    from markdown_it import MarkdownIt  # noqa: PLC0415 - 160 modules that most commands and agents never need

    parser = MarkdownIt("commonmark", {"maxNesting": _DEEPEST})
    parser.core.ruler.enableOnly(["normalize", "block"])
    parser.block.ruler.enableOnly(_RULES)
    return parser


def _headings(tokens: "list[Token]") -> Iterator[tuple[int, Heading]]:
    for token, inline in pairwise(tokens):
        if token.type == "heading_open" and token.level == 0 and token.map:
            text = inline.content.split("\n")
            yield token.map[0] + len(text) - 1, Heading(text[-1], underlined=token.markup in ("=", "-"))


def _lines(tokens: "Iterable[Token]") -> Lines:
    ranges = [token.map for token in tokens if token.map]
    return Lines(tuple(start for start, _ in ranges), tuple(end for _, end in ranges))
