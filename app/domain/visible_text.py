"""What a reader of a text sees of it, for prompts, titles and terminals: hidden things are left out, and counted."""

import re
import unicodedata

_BEFORE_BLOCKS = re.compile(r"[ \t>*+\-\d.)]{0,40}")  # marks of lists and quotations, in whose lines HTML may begin
_NOT_SHOWN = re.compile(  # what begins with such a tag, and links that nothing can use; code is shown as it stands
    r"(?P<code>^ {0,3}(?P<mark>`{3,}(?=[^`\n]*$)|~{3,})[^\n]*\n.*?(?:^ {0,3}(?P=mark)[`~]*[ \t]*$|\Z)|(?<!\\)`[^`\n]+`)"
    r"|<(?P<name>style|script|template|noscript|title)\b[^>]{0,500}>"
    r"|^ {0,3}\[[^\]\n]{1,200}\]:[ \t]*(?:#|<>)[ \t]+(?:\([^\n]*\)|\"[^\n]*\"|'[^\n]*')[ \t]*$",
    re.DOTALL | re.MULTILINE | re.IGNORECASE,
)
_BLANK_LINE = re.compile(r"\n[ \t]*\n")
_RAW_HTML = re.compile(rf"^{_BEFORE_BLOCKS.pattern}<[a-zA-Z/?!](?!--)", re.MULTILINE)
_DIRECTION = frozenset("\u200e\u200f\u061c\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_BLANK = frozenset(
    "\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u2800\u3164\uffa0"  # letters and marks that show nothing
    + "".join(map(chr, (*range(0xFE00, 0xFE0E), *range(0xE0100, 0xE01F0))))  # variants, but those of emoji
)


def clean(text: str) -> str:
    """Text without what a reader of the issue would not see: NUL and other control characters, zero-width and
    direction characters, HTML comments and elements that are not shown. Line ends become \\n."""
    return printable(_shown(_without_comments(text)[0])[0])


def printable(text: str) -> str:
    """Text without control and format characters, for where HTML means nothing. Line ends become \\n."""
    return "".join(c for c in _unix(text) if not _is_hidden(c))


def hidden(text: str) -> tuple[str, ...]:
    """What `clean` leaves out of a text, counted: ("2 HTML comments", "1 direction character")."""
    without, comments = _without_comments(text)
    without, unseen = _shown(without)
    gone = [c for c in _unix(without) if _is_hidden(c)]
    direction = sum(c in _DIRECTION for c in gone)
    counts = (
        ("HTML comment", "HTML comments", comments),
        ("piece of HTML that is not shown", "pieces of HTML that are not shown", unseen),
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


def _shown(text: str) -> tuple[str, int]:
    """A text without what a browser does not show of it, and how many pieces that were."""
    kept, at, count = [], 0, 0
    unclosed: set[str] = set()  # looked for once, or a body of nothing but tags would take minutes
    while found := _NOT_SHOWN.search(text, at):
        name, end = (found["name"] or "").lower(), found.end()
        if name and name not in unclosed:
            close = re.compile(rf"</{name}\s*>", re.IGNORECASE).search(text, end)
            unclosed |= set() if close else {name}
            end = close.end() if close else end
        is_shown = found["code"] is not None or name in unclosed
        kept.append(text[at : end if is_shown else found.start()])
        at, count = end, count + (not is_shown)
    return "".join([*kept, text[at:]]), count


def _without_comments(text: str) -> tuple[str, int]:
    """A text without its HTML comments, and how many there were. One that is not closed reaches to the end where its
    line begins with it, and everywhere within other HTML; elsewhere it must end within its paragraph, or readers see it
    as it stands, and so does the agent."""
    text, kept, at, count = _unix(text), [], 0, 0
    in_html, end, gap = bool(_RAW_HTML.search(text)), 0, 0
    while (begin := text.find("<!--", at)) >= 0:
        if end < begin + 4:
            end = text.find("-->", begin + 4) if end >= 0 else -1
            end = len(text) + 1 if end < 0 else end
        if gap < begin:
            blank = _BLANK_LINE.search(text, begin)
            gap = blank.start() if blank else len(text)
        is_block = in_html or bool(_BEFORE_BLOCKS.fullmatch(text, text.rfind("\n", 0, begin) + 1, begin))
        if not is_block and end > gap:
            kept.append(text[at : begin + 4])
            at = begin + 4
            continue
        kept.append(text[at:begin])
        at, count = min(end + 3, len(text)), count + 1
    return "".join([*kept, text[at:]]), count


def _is_hidden(c: str) -> bool:
    return c in _BLANK or (c not in "\n\t" and unicodedata.category(c) in ("Cc", "Cf", "Cs", "Co"))
