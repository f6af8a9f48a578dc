"""Every tutorial as a notebook too, made from its page: text, snippets and commands."""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any

from pages import blocks

FOLDER = "tutorials/notebooks"


def write(source: Path) -> None:
    """Write a notebook for each tutorial, without outputs, where it has changed."""
    folder = source / FOLDER
    folder.mkdir(exist_ok=True)
    for page in tutorials(source):
        text = json.dumps(notebook(page), indent=1, ensure_ascii=False)
        path = folder / f"{page.stem}.ipynb"
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def tutorials(source: Path) -> list[Path]:
    """Tutorials with anything to run."""
    pages = sorted((source / "tutorials").glob("*.md"))
    return [page for page in pages if any(block.runs for block in blocks(page))]


def notebook(page: Path) -> dict[str, Any]:
    """The cells of a page: what is printed is left for the reader to see."""
    lines = page.read_text(encoding="utf-8").splitlines()
    cells, start = [], 0
    for block in [block for block in blocks(page) if block.runs]:
        cells.append(_cell("markdown", _text(lines[start : block.lines[0] - 1])))
        code = block.source
        if "file" in block.remarks:
            code = f"%%writefile {block.remarks['file']}\n{code}"
        elif block.language == "console":
            code = "\n".join(f"!{command}" for command in block.commands)
        cells.append(_cell("code", code))
        start = (block.output or block.lines)[1] + 1
    cells.append(_cell("markdown", _text(lines[start:])))
    python = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return {
        "cells": [cell for cell in cells if cell["source"]],
        "metadata": {"kernelspec": python},
        "nbformat": 4,
        "nbformat_minor": 5,
    }


def _text(lines: list[str]) -> str:
    return "\n".join(line for line in lines if not line.startswith("<!-- ")).strip()


def _cell(kind: str, text: str) -> dict[str, Any]:
    cell: dict[str, Any] = {
        "cell_type": kind,
        "id": f"cell-{zlib.crc32(text.encode())}",
        "metadata": {},
        "source": text.splitlines(keepends=True),
    }
    return cell | ({"execution_count": None, "outputs": []} if kind == "code" else {})


def link(app: Any, name: str, content: list[str]) -> None:
    """A line below the title of a tutorial that leads to its notebook."""
    if (Path(app.srcdir) / FOLDER / f"{Path(name).name}.ipynb").exists() and name.startswith(
        "tutorials/"
    ):
        title, _, rest = content[0].partition("\n")
        here = f"{{download}}`a notebook <notebooks/{Path(name).name}.ipynb>`"
        content[0] = f"{title}\n\n*This page is also {here}.*\n{rest}"
