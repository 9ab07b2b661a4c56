"""The documentation: links lead somewhere, every page and every module is listed, and the site needs no other host."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
pytestmark = pytest.mark.skipif(not (ROOT / "mkdocs.yml").is_file(), reason="reads the documentation of a clone")

FOLDERS = ("amer", "benchmarks", "experiments", "hub_cards", "modeling_amer", "trainer")
LOADS = {"script": "src", "img": "src", "source": "src", "iframe": "src", "video": "src", "audio": "src"}
ELSEWHERE = re.compile(r"\s*(https?:)?//", re.IGNORECASE)


def pages() -> list[str]:
    """Every page, relative to the root; none of a wheel, which has no documentation."""
    files = [*DOCS.rglob("*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
    return sorted(str(file.relative_to(ROOT)) for file in files)


def prose(page: Path) -> str:
    """A page without its blocks of code."""
    return re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


def anchors(page: Path) -> set[str]:
    """What may follow # in a link to a page."""
    headings = re.findall(r"^#+ +(.+)$", prose(page), re.MULTILINE)
    words = [re.sub(r"[^\w\s-]", "", heading.lower()).strip() for heading in headings]
    return {re.sub(r"[-\s]+", "-", heading) for heading in words}


def links(page: Path) -> list[str]:
    """The targets of a page's links and images that are not on other hosts."""
    text = re.sub(r"`[^`\n]*`", "", prose(page))
    found = re.findall(r"\]\(([^)\s]+)[^)]*\)", text) + re.findall(r"<img [^>]*src=\"([^\"]+)\"", text)
    return [target for target in found if not re.match(r"[a-z]+:", target)]


@pytest.mark.parametrize("name", pages())
def test_links_lead_to_files_and_headings(name):
    page = ROOT / name
    broken = []
    for target in links(page):
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.exists() or (anchor and anchor not in anchors(file)):
            broken.append(target)
    assert broken == []


def in_navigation(entries: list) -> Iterator[str]:
    """The pages of a navigation, of its sections too."""
    for entry in entries:
        value = next(iter(entry.values())) if isinstance(entry, dict) else entry
        yield from in_navigation(value) if isinstance(value, list) else [value]


def test_every_page_is_in_the_navigation():
    """Reports of results are reached from the page of results."""
    listed = list(in_navigation(yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]))
    written = [page.name for page in DOCS.glob("*.md")] + ["results/README.md"]
    assert sorted(listed) == sorted(written)


def test_the_layout_has_a_line_for_every_module():
    """Below the heading of its folder; what a package itself is for stands in the table of folders."""
    sections = re.split(r"^#{2,3} (\S+/)$", (DOCS / "layout.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
    listed = [
        folder + name
        for folder, text in zip(sections[1::2], sections[2::2], strict=True)
        for name in re.findall(r"^- `(\S+\.py)`: ", text, re.MULTILINE)
    ]
    modules = [file for folder in FOLDERS for file in (ROOT / folder).rglob("*.py") if file.name != "__init__.py"]
    assert sorted(listed) == sorted(str(file.relative_to(ROOT)) for file in modules)


class Loaded(HTMLParser):
    """What a page makes a browser load; links that a reader may follow are left out."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        values = dict(attributes)
        if tag == "link" and values.get("rel") not in ("canonical", "next", "prev"):
            self.found.append(values.get("href") or "")
        elif tag in LOADS:
            self.found += [values.get(LOADS[tag]) or "", values.get("srcset") or ""]


@pytest.mark.slow
@pytest.mark.skipif(find_spec("mkdocs") is None, reason="needs the extra `docs`")
def test_the_site_builds_without_a_warning_and_loads_nothing_from_other_hosts(tmp_path):
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    loaded = []
    for page in tmp_path.rglob("*.html"):
        parser = Loaded()
        parser.feed(page.read_text(encoding="utf-8"))
        loaded += parser.found
    for sheet in tmp_path.rglob("*.css"):
        loaded += re.findall(r"(?:url\(|@import)\s*[\"']?([^\"')]+)", sheet.read_text(encoding="utf-8"))
    assert any(target.endswith(".js") for target in loaded) and any(target.endswith(".svg") for target in loaded)
    assert [target for target in loaded if ELSEWHERE.match(target)] == []
    assert "Searcher.from_pretrained" in (tmp_path / "api" / "index.html").read_text(encoding="utf-8")
