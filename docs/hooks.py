"""Hooks of the documentation's build: the commands' help as a page, and links to files of the repository."""

from __future__ import annotations

import importlib
import re
import textwrap
from pathlib import Path
from typing import Any

import typer
from typer.cli import get_docs_for_click

from dovit.runtime.cli.start import COMMANDS

REPOSITORY = Path(__file__).parent.parent
LINK_UP = re.compile(r"\[([^\]]+)\]\(((?:\.\./)+)(?!\.\./)([^)#]+)(?:#[^)]*)?\)")


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Fill the page of commands; a link that leaves docs/ becomes the file's name, since a site does not hold the file."""
    if page.file.src_uri == "reference/commands.md":
        markdown += "\n".join(_help(f"dovit-{name}", COMMANDS[name][0]) for name in sorted(COMMANDS))
    depth = page.file.src_uri.count("/") + 1
    return LINK_UP.sub(lambda match: _as_name(match, depth), markdown)


def _help(name: str, module_name: str) -> str:
    """A command's options as Markdown, from the command itself."""
    module = importlib.import_module(module_name)
    app = typer.Typer(add_completion=False)
    app.command()(module.command)
    click_command = typer.main.get_command(app)
    text = get_docs_for_click(obj=click_command, ctx=typer.Context(click_command), name=name)
    examples = textwrap.dedent(module.EPILOG.partition("Examples:\n")[2])
    return re.sub(r"^(#+) ", r"#\1 ", text, flags=re.MULTILINE) + f"\nExamples:\n\n```sh\n{examples}```\n"


def _as_name(link: re.Match[str], depth: int) -> str:
    text, path = link[1], link[3]
    if link[2].count("../") < depth:  # stays within docs/
        return link[0]
    if not (REPOSITORY / path).exists():
        raise FileNotFoundError(f"a page links to {path}, which is not in the repository")
    return f"`{path}`" if text.strip("`") == path else f"{text} (`{path}`)"
