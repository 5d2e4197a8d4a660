"""MkDocs hooks of the documentation site: pages from outside docs/, and links to them."""

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parent.parent
#: Pages of the repository that the site shows too, under the same paths.
OUTSIDE = ("CHANGELOG.md", "CONTRIBUTING.md", "benchmarks/README.md", "benchmarks/RESULTS.md")

_LINK = re.compile(r"(?<=\]\()(?![a-z]+:|#|/)([^)\s#]+)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages from outside."""
    for path in OUTSIDE:
        files.append(File.generated(config, path, abs_src_path=str(ROOT / path)))
    return files


def on_page_content(html: str, page: Page, **_: Any) -> str:
    """A page without sections needs no table of contents; its tables take the room."""
    if not any(heading.children for heading in page.toc):
        page.meta.setdefault("hide", []).append("toc")
    return html


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Links hold in the repository; say them as they hold in the site."""
    here = page.file.src_uri
    folder = posixpath.dirname(here if here in OUTSIDE else f"docs/{here}")

    def moved(link: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(folder, link[1]))
        if target not in OUTSIDE and not target.startswith("docs/"):
            return link[0]
        return posixpath.relpath(target.removeprefix("docs/"), posixpath.dirname(here) or ".")

    return _LINK.sub(moved, markdown)
