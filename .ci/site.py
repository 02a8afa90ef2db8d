"""A hook of mkdocs: links that leave docs/ lead into the repository, which no site has beside it.

In: the Markdown of a page. Out: the same, where `](../PATH)` is the file's page at REPOSITORY_URL;
or, where that is not set, the text of the link alone.
"""

import os
import re
from pathlib import Path, PurePosixPath
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
LINK = re.compile(r"(!?)\[([^\]]*)\]\(((?:\.\./)[^)#\s]*)(#[^)\s]*)?\)")


def on_page_markdown(markdown: str, *, page: Any, **_: object) -> str:  # noqa: ANN401 - mkdocs has no types
    """Called by mkdocs for each page; raises FileNotFoundError for a link to nothing."""
    folder = PurePosixPath("docs", page.file.src_uri).parent

    def rewrite(found: re.Match[str]) -> str:
        target = Path(os.path.normpath(folder / found[3]))
        if target.parts[0] == "docs":
            return found[0]
        if not (ROOT / target).exists():
            raise FileNotFoundError(f"{page.file.src_uri} links to {target}, which is not there")
        repository = os.environ.get("REPOSITORY_URL")
        if not repository:
            return found[2]
        return f"[{found[2]}]({repository}/blob/main/{target.as_posix()}{found[4] or ''})"

    return LINK.sub(rewrite, markdown)
