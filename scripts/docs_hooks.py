"""Pages of the site that live elsewhere in the checkout: README.md is its first page, CHANGELOG.md its last."""

from __future__ import annotations

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parent.parent
PAGES = {"index.md": "README.md", "changelog.md": "CHANGELOG.md"}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add them, with their paths as seen from docs/, and `docs/page.md` as a link to that page."""
    known = {file.src_uri for file in files}
    for page, source in PAGES.items():
        text = (ROOT / source).read_text().replace("](docs/", "](")
        text = re.sub(r"`docs/([\w-]+\.md)`", lambda m: f"[{m[0]}]({m[1]})" if m[1] in known else m[0], text)
        files.append(File.generated(config, page, content=text))
    return files


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Docstrings name classes as Sphinx has it, :class:`~module.Name`; here the name alone is shown."""
    return re.sub(r":(?:class|meth|func|attr|mod):<code>~?", "<code>", html)
