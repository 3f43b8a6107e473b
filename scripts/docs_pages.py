"""What MkDocs asks while it builds the documentation: which pages lie outside ``docs/``, and links.

A link is written as it holds in the repository, so that it works where files are read in place;
here it becomes what it is in the site.
"""

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

PAGES = ("CONTRIBUTING.md", "CHANGELOG.md", "results/README.md", "results/reference/*.*")
PAGES += ("results/reference/pictures/*.*",)
"""Beside those in ``docs/``, each under the path that it has in the repository; not reports
that somebody has made there."""

LINK = re.compile(r"(\]\(|src=\"|href=\")([^)#\"\s:]+)(?=[)#\"\s])")
"""A relative link, of Markdown or HTML: what it begins with, and where it leads."""


def on_files(files: Files, config: Any) -> Files:
    """Add the pages and pictures that lie elsewhere."""
    root = Path(config.config_file_path).parent
    for path in sorted(path for pattern in PAGES for path in root.glob(pattern)):
        uri = path.relative_to(root).as_posix()
        files.append(File.generated(config, uri, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Turn the links of a page in the repository into those of the site."""
    uri = page.file.src_uri
    here = posixpath.dirname(uri if page.file.generated_by else f"docs/{uri}")

    def of_site(found: re.Match[str]) -> str:
        leads = posixpath.normpath(posixpath.join(here, found[2])).removeprefix("docs/")
        return found[1] + posixpath.relpath(leads, posixpath.dirname(uri) or ".")

    return LINK.sub(of_site, markdown)
