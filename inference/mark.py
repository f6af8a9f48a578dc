"""Mark rows of a sheet in the terminal: off the task, or on it.

  rbpp assess … --ask sheet.csv
  rbpp mark sheet.csv
  rbpp assess … --marks sheet.csv

Answers are y (off the task), n (on it), s (skip), b (back) and q (stop here): every answer is
written at once, and the next call goes on with the rows that have none.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rbpp import command
from rbpp.result import Result


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of this program."""
    parser.add_argument("sheet", metavar="FILE", type=Path, help="that rbpp assess --ask wrote")
    parser.add_argument("--again", action="store_true", help="ask also for rows that are marked")


def run(arguments: argparse.Namespace) -> command.Done:
    """Ask for every row, and keep the answers."""
    from rbpp.assessment.marks import Sheet, mark
    from rbpp.sentences import of_marks

    sheet = Sheet.read(arguments.sheet)
    marked = mark(sheet, again=arguments.again)
    rows = len(marked.lines)
    said = of_marks(rows, marked.count, marked.off_task, str(arguments.sheet))
    settings = {"rows": rows, "marked": marked.count, "off_task": marked.off_task}
    return command.Done(Result(headline=tuple(said), settings=settings), written=[arguments.sheet])


if __name__ == "__main__":
    sys.exit(command.main([Path(__file__).stem, *sys.argv[1:]]))
