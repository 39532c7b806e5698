"""Hooks of mkdocs: pages that lie elsewhere in the repository, and links that are good there and on the site alike.

Writes no file; a link to what is no page, such as a test, stays as its text.
"""

import re
from pathlib import Path
from posixpath import dirname, join, normpath, relpath

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
ELSEWHERE = {  # a file of the repository: its page
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security-policy.md",
    "bench/README.md": "benchmarks.md",
    "client/README.md": "command-line.md",
    "demo/README.md": "demo.md",
    "deploy/README.md": "deploy.md",
    "deploy/two-hosts/README.md": "two-hosts.md",
    "examples/README.md": "examples.md",
}
ICON = "ui/static/icon.svg"  # one for the page and the site
SOURCES = {page: source for source, page in ELSEWHERE.items()}
LINK = re.compile(r"\[([^\]\n]*)\]\((?![a-z]+:|#)([^)#\s]+)(#[^)\s]*)?\)")


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    for source, page in ELSEWHERE.items():
        files.append(File.generated(config, page, abs_src_path=str(ROOT / source)))
    files.append(File.generated(config, "images/icon.svg", abs_src_path=str(ROOT / ICON)))
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    here = page.file.src_uri
    folder = dirname(SOURCES.get(here, f"docs/{here}"))

    def on_site(link: re.Match[str]) -> str:
        text, target, anchor = link.groups(default="")
        found = _page_of(normpath(join(folder, target)))
        return text if found is None else f"[{text}]({relpath(found, dirname(here))}{anchor})"

    return LINK.sub(on_site, markdown)


def _page_of(path: str) -> str | None:
    """Where the site has a file of the repository. A missing page of docs/ is left for mkdocs to complain about."""
    path = f"{path}/README.md" if (ROOT / path / "README.md").is_file() else path
    return ELSEWHERE.get(path) or (path.removeprefix("docs/") if path.startswith("docs/") else None)
