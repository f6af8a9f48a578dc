"""Options of the programs that read the rows of several sources: assess and compare."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any


def add_fields(parser: argparse.ArgumentParser) -> None:
    """What to read of every file; for `rbpp assess` and `rbpp compare`."""
    fields = parser.add_argument_group("what to read of them")
    fields.add_argument(
        "--text-field",
        metavar="F",
        action="append",
        default=[],
        help="a text field, a path a.0.b, or alternatives a|b; several are joined in order",
    )
    fields.add_argument("--embedding-field", metavar="F", help="a field with a vector per row")
    fields.add_argument("--id-field", metavar="F", help="distinct ids (id, where there is one)")
    fields.add_argument(
        "--group-field",
        metavar="F",
        help="generated rows with equal values, as of one prompt, are not independent",
    )
    fields.add_argument(
        "--embedding-model",
        metavar="PATH_OR_NAME",
        help="sentence-transformers model for text; TF-IDF and truncated SVD without it",
    )
    fields.add_argument(
        "--cache", metavar="DIR", type=Path, help="of embeddings (~/.cache/rbpp/embeddings)"
    )


def add_fits(parser: argparse.ArgumentParser) -> None:
    """Size and length of the fits; for `rbpp assess` and `rbpp compare`."""
    parser.add_argument(
        "--dimension", type=int, metavar="D", help="principal components; min(rows, 32)"
    )
    parser.add_argument(
        "--components", type=int, metavar="K", help="of the shared mixture; rows / 40, 4 to 20"
    )
    parser.add_argument("--chains", type=int, default=4, metavar="C", help="restarts (4)")
    parser.add_argument("--draws", type=int, default=250, metavar="N", help="per restart (250)")


def read_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """What both programs hand on, by the names that `assess` and `compare` give it."""
    return {
        "text_fields": [name for field in arguments.text_field for name in field.split(",")],
        **{
            name: getattr(arguments, name)
            for name in (
                "embedding_field",
                "id_field",
                "group_field",
                "embedding_model",
                "cache",
                "dimension",
                "components",
                "chains",
                "draws",
                "seed",
                "device",
                "quiet",
            )
        },
    }
