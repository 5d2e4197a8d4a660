"""Checks a built site: every link leads somewhere within it, and no page loads anything from elsewhere.

.venv-docs/bin/python docs/check_site.py build/site
"""

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

#: What a browser fetches without being asked.
_LOADED = {"script": "src", "img": "src", "iframe": "src", "source": "src", "video": "src", "object": "data"}
_LOADED_BY_LINK = {"stylesheet", "icon", "preload", "modulepreload", "preconnect", "dns-prefetch", "manifest"}


class Document(HTMLParser):
    """The ids of a page, where its links lead, and what it loads."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.ids |= {given[name] for name in ("id", "name") if name in given}
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        if _LOADED.get(tag, "") in given:
            self.loaded.append(given[_LOADED[tag]])
        if tag == "link" and _LOADED_BY_LINK & set(given.get("rel", "").split()):
            self.loaded.append(given.get("href", ""))


def problems(site: Path) -> list[str]:
    """One line for each link that leads nowhere and for each thing that is loaded from elsewhere."""
    pages = {path: Document(path.read_text()) for path in sorted(site.rglob("*.html"))}
    found = []
    for path, page in pages.items():
        if path.name == "404.html":  # served at any address, so it links by absolute paths
            continue
        name = path.relative_to(site)
        found += [f"{name} loads {address}" for address in page.loaded if _is_elsewhere(address)]
        for address in [*page.links, *page.loaded]:
            if _is_elsewhere(address):
                continue
            parts = urlsplit(address)
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if target.is_dir():
                target /= "index.html"
            if not target.is_file():
                found.append(f"{name} links to {address}, which is not there")
            elif parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].ids:
                found.append(f"{name} links to {address}, which has no such place")
    return found


def _is_elsewhere(address: str) -> bool:
    parts = urlsplit(address)
    return bool(parts.scheme or parts.netloc)


if __name__ == "__main__":
    told = problems(Path(sys.argv[1]).resolve())
    print("\n".join(told) or "Every link leads somewhere, and nothing is loaded from elsewhere.")
    sys.exit(bool(told))
