"""What the site needs beside the pages of docs/: the root's pages, and links that hold inside the site.

mkdocs calls these functions by their names (mkdocs.yml, `hooks`).
"""

from __future__ import annotations

import logging
import re
import runpy
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
# Pages of the root, by their names in the site.
PAGES = {
    "index.md": "README.md",
    "CHANGELOG.md": "CHANGELOG.md",
    "CONTRIBUTING.md": "CONTRIBUTING.md",
    "SECURITY.md": "SECURITY.md",
}
_LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)#\s]*)(#[^)\s]*)?\)")
_FENCE = re.compile(r"(^```.*?^```$)", re.DOTALL | re.MULTILINE)


def on_config(config: Any) -> Any:
    """Leaves out entries of pages that do not exist, and lists the pages that have none."""
    listed: set[str] = set()
    config.nav = [kept for entry in config.nav if (kept := _keep_existing(entry, listed))]
    missing = sorted({path.name for path in (ROOT / "docs").glob("*.md")} - listed)
    how_to = next(entry["How to"] for entry in config.nav if "How to" in entry)
    how_to += [{name.removesuffix(".md").replace("_", " ").capitalize(): name} for name in missing]
    return config


def _keep_existing(entry: dict[str, Any], listed: set[str]) -> dict[str, Any]:
    """Returns an entry of the navigation without pages that do not exist; adds the others to `listed`."""
    (title, value) = next(iter(entry.items()))
    if isinstance(value, list):
        return {title: [kept for item in value if (kept := _keep_existing(item, listed))]}
    if value not in PAGES and not (ROOT / "docs" / value).exists():
        return {}
    listed.add(value)
    return entry


def on_files(files: Any, config: Any) -> Any:
    """Adds the pages of the root, and ONNX Runtime Web beside the page of docs/web."""
    from mkdocs.structure.files import File

    for name, source in PAGES.items():
        files.append(File.generated(config, name, content=(ROOT / source).read_text(encoding="utf-8")))
    build = runpy.run_path(str(ROOT / "docs" / "build_web.py"))
    try:
        library = build["get_library"]()
    except (OSError, RuntimeError) as error:  # the page tells its user what is missing
        logging.getLogger("mkdocs").info("web/ comes without ONNX Runtime Web: %s", error)
        return files
    for path in library.iterdir():
        files.append(File.generated(config, f"web/{build['NAME']}/{path.name}", abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Rewrites links for the site; those to files that are not in it become plain text."""
    folder = ROOT if page.file.src_uri in PAGES else ROOT / "docs"
    parts = _FENCE.split(markdown)
    return "".join(part if part.startswith("```") else rewrite_links(part, folder) for part in parts)


def rewrite_links(text: str, folder: Path) -> str:
    """Returns a page's text with links for the site; `folder` is where the page lies in the tree."""

    def rewrite(match: re.Match[str]) -> str:
        image, label, target, anchor = match[1], match[2], match[3], match[4] or ""
        if "://" in target or not target:
            return match[0]
        path = (folder / target).resolve()
        name = next((name for name, source in PAGES.items() if path == ROOT / source), None)
        # The site has no page of a folder, and no scripts.
        if name is None and path.is_relative_to(ROOT / "docs") and path.is_file() and path.suffix != ".py":
            name = path.relative_to(ROOT / "docs").as_posix()
        return f"{image}[{label}]({name}{anchor})" if name else label

    return _LINK.sub(rewrite, text)
