"""The site's first page is README.md; links to files that the site has not become plain text."""

import re
from pathlib import Path, PurePosixPath
from posixpath import normpath

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
PAGES = {"README.md": "index.md", "benchmarks/README.md": "benchmarks.md", "CHANGELOG.md": "changes.md"}
"""Pages that lie outside `docs/`, and what the site calls them."""
LINK = re.compile(r"\[((?:[^][]|\[[^]]*\])*)\]\((?![a-z]+:|#)([^)\s#]+)(#[^)\s]+)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages that lie outside `docs/`."""
    for source, name in PAGES.items():
        files.append(File.generated(config, name, content=(ROOT / source).read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Links between files of the repository as links between pages of the site."""
    name = page.file.src_uri
    folder = PurePosixPath(next((source for source, made in PAGES.items() if made == name), f"docs/{name}")).parent

    def link(found: re.Match[str]) -> str:
        text, path, anchor = found.groups()
        target = normpath(folder / path)
        made = PAGES.get(target, target.removeprefix("docs/") if target.startswith("docs/") else "")
        if made:
            return f"[{text}]({'../' * name.count('/')}{made}{anchor or ''})"
        if not (ROOT / target).exists():
            raise FileNotFoundError(f"{folder}: links to {target}, which is not there")
        return text

    return LINK.sub(link, markdown)
