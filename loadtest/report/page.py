"""A page as blocks, written as Markdown or as one HTML file that needs nothing else.

In: headings, paragraphs, lists, tables, images (SVG). Out: text. In Markdown an image is a file
beside the page; in HTML it is part of it.
"""

import base64
import dataclasses
import html
import re
from collections.abc import Sequence

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem;
  color: #222; background: #fff }
table { border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums }
th, td { padding: .25rem .6rem; border-bottom: 1px solid #ddd; text-align: left }
td { white-space: nowrap } td.number { text-align: right }
code { background: #f3f3f3; padding: 0 .2rem } img { max-width: 100% }
.wrong { color: #b00020; font-weight: bold } .wide { overflow-x: auto }
"""


@dataclasses.dataclass(frozen=True)
class Heading:
    """A title; level 1 is that of the page."""

    text: str
    level: int = 2


@dataclasses.dataclass(frozen=True)
class Text:
    """A paragraph; `code` and **strong** words as in Markdown."""

    text: str
    wrong: bool = False  # shown in red


@dataclasses.dataclass(frozen=True)
class Facts:
    """A list."""

    lines: Sequence[str]


@dataclasses.dataclass(frozen=True)
class Table:
    """Cells as text."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]

    def is_number(self, column: int) -> bool:
        """Whether a column holds numbers, which are aligned by their last digits."""
        return all(re.match(r"[-+–]?[\d.,%]*$", row[column]) for row in self.rows)


@dataclasses.dataclass(frozen=True)
class Plot:
    """A plot; `name` is its file without a suffix."""

    name: str
    about: str
    svg: str = dataclasses.field(repr=False)


Block = Heading | Text | Facts | Table | Plot


def markdown(blocks: Sequence[Block], folder: str) -> str:
    """Markdown; images are referred to as files of `folder`."""
    return "\n\n".join(_markdown(block, folder) for block in blocks) + "\n"


def _markdown(block: Block, folder: str) -> str:
    match block:
        case Heading():
            return f"{'#' * block.level} {block.text}"
        case Text():
            return f"**{block.text}**" if block.wrong else block.text
        case Facts():
            return "\n".join(f"- {line}" for line in block.lines)
        case Plot():
            return f"![{block.about}]({folder}/{block.name}.svg)"
        case Table():
            rows = [
                block.head,
                ["---:" if block.is_number(n) else "---" for n in range(len(block.head))],
                *block.rows,
            ]
            escaped = [[cell.replace("|", "\\|") for cell in row] for row in rows]
            return "\n".join(f"| {' | '.join(row)} |" for row in escaped)


def html_page(title: str, blocks: Sequence[Block]) -> str:
    """One HTML file; nothing is loaded from elsewhere."""
    body = "\n".join(_html(block) for block in blocks)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{STYLE}</style></head>\n"
        f"<body>\n{body}\n</body></html>\n"
    )


def _html(block: Block) -> str:
    match block:
        case Heading():
            return f"<h{block.level}>{_inline(block.text)}</h{block.level}>"
        case Text():
            kind = ' class="wrong"' if block.wrong else ""
            return f"<p{kind}>{_inline(block.text)}</p>"
        case Facts():
            return "<ul>" + "".join(f"<li>{_inline(line)}</li>" for line in block.lines) + "</ul>"
        case Plot():
            data = base64.b64encode(block.svg.encode()).decode()
            return f'<img alt="{html.escape(block.about)}" src="data:image/svg+xml;base64,{data}">'
        case Table():
            head = "".join(f"<th>{_inline(cell)}</th>" for cell in block.head)
            kinds = [
                '<td class="number">' if block.is_number(n) else "<td>"
                for n in range(len(block.head))
            ]
            rows = "".join(
                "<tr>"
                + "".join(
                    f"{kind}{_inline(cell)}</td>" for kind, cell in zip(kinds, row, strict=True)
                )
                + "</tr>"
                for row in block.rows
            )
            table = f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
            return f'<div class="wide">{table}</div>'


def _inline(text: str) -> str:
    escaped = html.escape(text)
    escaped = re.sub(r"`([^`]+)`", r"<code>\1</code>", escaped)
    escaped = re.sub(r"\*\*([^*]+)\*\*", r"<b>\1</b>", escaped)
    return re.sub(r"\[([^\]]+)\]\((https?://[^)\s]+)\)", r'<a href="\2">\1</a>', escaped)
