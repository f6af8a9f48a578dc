"""Hold a built site to its promises: links and pictures resolve, nothing is from a network.

python docs/tools/links.py docs/_build
"""

from __future__ import annotations

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

# What a page loads when it opens; a link (`a href`) may lead out.
_LOADED = {
    ("script", "src"),
    ("link", "href"),
    ("img", "src"),
    ("iframe", "src"),
    ("source", "src"),
}


class Page(HTMLParser):
    """The ids of a page, what it loads, where it leads, and pictures that say nothing in words."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.loads: list[str] = []
        self.leads: list[str] = []
        self.mute: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Collect them."""
        given = {name: value or "" for name, value in attrs}
        self.ids.update(given[name] for name in ("id", "name") if given.get(name))
        for name, value in given.items():
            informs = tag == "link" and given.get("rel") in ("canonical", "author", "index")
            if (tag, name) in _LOADED and not informs:
                self.loads.append(value)
        if tag == "a" and given.get("href"):
            self.leads.append(given["href"])
        if tag == "img" and not given.get("alt"):
            self.mute.append(given.get("src", ""))


def faults(folder: Path) -> list[str]:
    """What is wrong with a site, a line each."""
    pages = {
        path: Page(path.read_text(encoding="utf-8")) for path in sorted(folder.rglob("*.html"))
    }
    found = [] if pages else [f"{folder}: Expected pages; got none"]
    for path, page in pages.items():
        where = path.relative_to(folder)
        for address in page.loads:
            if urlsplit(address).scheme not in ("", "data") or address.startswith("//"):
                found.append(f"{where}: is loaded from a network: {address}")
        found += [f"{where}: a picture without words: {source}" for source in page.mute]
        for address in {*page.loads, *page.leads}:
            found += [f"{where}: {fault}" for fault in _broken(address, path, pages)]
    for style in folder.rglob("*.css"):
        text = style.read_text(encoding="utf-8", errors="replace")
        if "url(http" in text.replace('"', "").replace("'", "") or "@import" in text:
            found.append(f"{style.relative_to(folder)}: loads from a network")
    return found


def _broken(address: str, path: Path, pages: dict[Path, Page]) -> list[str]:
    parts = urlsplit(address)
    if parts.scheme or parts.netloc:
        return []
    target = path if not parts.path else (path.parent / unquote(parts.path)).resolve()
    if target.is_dir():
        target = target / "index.html"
    if not target.exists():
        return [f"leads nowhere: {address}"]
    fragment = unquote(parts.fragment)
    if fragment and target in pages and fragment not in pages[target].ids:
        return [f"leads to no such place: {address}"]
    return []


if __name__ == "__main__":
    wrong = faults(Path(sys.argv[1]).resolve())
    print(
        "\n".join(wrong) or "every link of the site resolves, and it loads nothing from a network"
    )
    sys.exit(bool(wrong))
