"""Pages as blocks, written as Markdown files or as one HTML file that needs nothing else.

In: headings, paragraphs, lists, tables, plots (SVG). Out: text. In Markdown a plot is a file beside
the page, and further pages are files of their own; in HTML everything is one file, with contents.
The HTML is made from the Markdown by markdown-it-py (CommonMark), so that both say the same.
"""

import base64
import dataclasses
import html
import re
from collections.abc import Sequence

from markdown_it import MarkdownIt

RENDERER = MarkdownIt("commonmark", {"html": False}).enable("table")
STYLE = """
:root { color-scheme: light dark; --ink: #1f2328; --paper: #fff; --line: #d0d7de; --shade: #f3f4f6;
  --wrong: #b00020; --link: #0969da }
@media (prefers-color-scheme: dark) { :root { --ink: #e6edf3; --paper: #0d1117; --line: #30363d;
  --shade: #1c2128; --wrong: #ff8a80; --link: #6cb6ff } }
* { box-sizing: border-box }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 1.5rem auto;
  padding: 0 1rem; color: var(--ink); background: var(--paper) }
a { color: var(--link) } h2 { margin-top: 2.5rem; border-bottom: 1px solid var(--line) }
table { border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums }
th, td { padding: .3rem .6rem; border-bottom: 1px solid var(--line); text-align: left;
  vertical-align: top }
.wide { overflow-x: auto } code { background: var(--shade); padding: 0 .2rem }
img { display: block; width: 100%; max-width: 40rem; height: auto; margin: 1rem 0 }
.wrong { color: var(--wrong); font-weight: bold } summary { cursor: pointer }
nav ul { columns: 18rem; padding-left: 1.2rem } details { margin: 1rem 0 }
@media (max-width: 30rem) { body { margin: .5rem auto; padding: 0 .6rem }
  table { font-size: 85% } th, td { padding: .25rem .35rem } }
"""


@dataclasses.dataclass(frozen=True)
class Heading:
    """A title; level 1 is that of the page."""

    text: str
    level: int = 2


@dataclasses.dataclass(frozen=True)
class Text:
    """A paragraph, in Markdown."""

    text: str
    wrong: bool = False  # shown in red


@dataclasses.dataclass(frozen=True)
class Facts:
    """A list, each line in Markdown."""

    lines: Sequence[str]


@dataclasses.dataclass(frozen=True)
class Table:
    """Cells in Markdown."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]

    def is_number(self, column: int) -> bool:
        """Whether a column holds numbers, which are aligned by their last digits."""
        return all(re.match(r"[-+–<>~]?[\d.,%]*$", row[column]) for row in self.rows)


@dataclasses.dataclass(frozen=True)
class Plot:
    """A plot; `name` is its file without a suffix, `about` is its text for a screen reader."""

    name: str
    about: str
    svg: str = dataclasses.field(repr=False)


@dataclasses.dataclass(frozen=True)
class Details:
    """Blocks that are folded away behind one line."""

    summary: str
    blocks: "Sequence[Block]"


Block = Heading | Text | Facts | Table | Plot | Details


@dataclasses.dataclass(frozen=True)
class Page:
    """A page; `name` is its file without a suffix, "" for the first page."""

    name: str
    title: str
    blocks: Sequence[Block]


def plots(blocks: Sequence[Block]) -> list[Plot]:
    """All plots, also the folded ones."""
    found = []
    for block in blocks:
        if isinstance(block, Plot):
            found.append(block)
        elif isinstance(block, Details):
            found += plots(block.blocks)
    return found


def markdown(page: Page, folder: str) -> str:
    """The page as Markdown, with its title; plots are referred to as files of `folder`."""
    blocks = [Heading(page.title, 1), *page.blocks]
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
        case Details():
            inner = "\n\n".join(_markdown(each, folder) for each in block.blocks)
            summary = html.escape(block.summary)
            return f"<details><summary>{summary}</summary>\n\n{inner}\n\n</details>"
        case Table():
            rows = [
                block.head,
                ["---:" if block.is_number(n) else "---" for n in range(len(block.head))],
                *block.rows,
            ]
            escaped = [[cell.replace("|", "\\|") for cell in row] for row in rows]
            return "\n".join(f"| {' | '.join(row)} |" for row in escaped)


def html_page(pages: Sequence[Page]) -> str:
    """One HTML file of all pages; nothing is loaded from elsewhere."""
    first, *others = pages
    entries = "".join(
        f'<li><a href="#{page.name}">{_inline(page.title)}</a></li>' for page in others
    )
    contents = f"<nav><h2>Contents</h2><ul>{entries}</ul></nav>" if others else ""
    body = [
        f"<h1>{_inline(first.title)}</h1>",
        *(_html(each, "") for each in first.blocks),
        contents,
    ]
    for page in others:
        body.append(f'<h2 id="{page.name}">{_inline(page.title)}</h2>')
        body += [_html(block, page.name) for block in page.blocks]
    text = "\n".join(body)
    for page in others:  # links between the pages' files
        text = re.sub(
            rf'href="(?:results/)?{re.escape(page.name)}\.md"', f'href="#{page.name}"', text
        )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(first.title)}</title><style>{STYLE}</style></head>\n"
        f"<body>\n{text}\n</body></html>\n"
    )


def _html(block: Block, page: str) -> str:
    match block:
        case Heading():
            level = min(6, block.level + 1) if page else block.level
            anchor = "-".join(filter(None, (page, _anchor(block.text))))
            return f'<h{level} id="{anchor}">{_inline(block.text)}</h{level}>'
        case Text() if block.wrong:
            return f'<p class="wrong">{_inline(block.text)}</p>'
        case Plot():
            data = base64.b64encode(block.svg.encode()).decode()
            return f'<img alt="{html.escape(block.about)}" src="data:image/svg+xml;base64,{data}">'
        case Details():
            inner = "\n".join(_html(each, page) for each in block.blocks)
            return f"<details><summary>{html.escape(block.summary)}</summary>\n{inner}\n</details>"
        case Table():
            return f'<div class="wide">{_rendered(block)}</div>'
        case _:
            return _rendered(block)


def _rendered(block: Block) -> str:
    return str(RENDERER.render(_markdown(block, ""))).strip()


def _inline(text: str) -> str:
    return str(RENDERER.renderInline(text))


def _anchor(text: str) -> str:
    """An anchor as GitHub makes it, so that links work in the Markdown and in the HTML."""
    return re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")
