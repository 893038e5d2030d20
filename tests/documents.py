"""Code blocks of the Markdown pages, for tests that run or check them."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = sorted(path for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")))
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def code_blocks(page: Path, language: str) -> list[str]:
    """The blocks of a page that are marked as `language`, such as `python`, in their order."""
    return [text for marked, text in BLOCK.findall(page.read_text(encoding="utf-8")) if marked == language]
