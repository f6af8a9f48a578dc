"""A posterior over the Gaussian mixture that rows come from.

  rbpp fit rows.npy --components 2..8
  rbpp fit rows.csv --components 12 --columns age,income --output fit.nc

DATA holds one row per line or record: .npy, .npz, CSV, Parquet, JSON, JSON lines, or a folder of
shards; - is standard input. Rows are numbers, or text that is embedded first; --dimension, and
text always, means their principal components, and then every term is one of these coordinates.
Chains are independent fits: where R-hat between them is above 1.05, the approximation is away from
the posterior, or held-out rows do not look like the mixture's own, a check says so. Rows that have
no density (columns that others give, one value over and over) and rows that alone set a scale are
refused.

Rows larger than memory, .npy, Parquet, Feather or Arrow, are read in chunks (--stream, and by
itself from 1 GiB on), on one machine or on those of a Ray cluster (--workers ray); Pareto k is not
judged then.
"""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rbpp import command, options
from rbpp.assessment.source_options import reading

if TYPE_CHECKING:
    import numpy as np

    from rbpp.mixtures.fit import Fit


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of this program."""
    parser.add_argument("data", metavar="DATA", help="file or folder of rows, or - (see below)")
    parser.add_argument(
        "--components",
        type=options.positive_integers,
        required=True,
        metavar="K",
        help="how many; of several, as 2..8 or 2,4,8, the one that predicts held-out rows best",
    )
    options.add_engine(
        parser,
        ("cavi", "svi", "nuts"),
        "coordinate ascent, stochastic gradients or sampling",
    )
    parser.add_argument("--embedding-field", metavar="F", help="the field with a vector per row")
    parser.add_argument(
        "--text-field",
        metavar="F",
        action="append",
        default=[],
        help="a text field; several are joined in order",
    )
    options.add(parser, "--columns", "--ignore", "--split")
    options.add(parser, "--standardise", default="no")
    options.add(parser, "--embedding-model")
    parser.add_argument(
        "--dimension",
        type=options.positive_integer,
        metavar="D",
        help="principal components (numbers: as they are; text: min(rows, 32))",
    )
    parser.add_argument(
        "--concentration",
        type=options.positive_number,
        default=1.0,
        metavar="C",
        help="of the weights' Dirichlet prior; below 1 it empties components not needed (1)",
    )
    parser.add_argument(
        "--chains",
        "--restarts",
        type=options.positive_integer,
        default=4,
        metavar="N",
        help="independent fits (4)",
    )
    options.add(parser, "--draws")
    parser.add_argument(
        "--points",
        type=options.positive_integer,
        default=256,
        metavar="N",
        help="points of each entropy (256)",
    )
    parser.add_argument(
        "--log-likelihood",
        action="store_true",
        help="keep the log likelihood of every row and draw, for az.loo",
    )
    large = parser.add_argument_group("rows larger than memory")
    large.add_argument("--stream", action="store_true", help="read the rows in chunks")
    large.add_argument("--weight-field", metavar="F", help="the field with the rows' weights")
    options.add(large, "--chunk-rows")
    large.add_argument(
        "--stochastic-passes",
        type=options.whole_number,
        metavar="N",
        help="readings with a step for every part of the rows (1)",
    )
    large.add_argument(
        "--passes",
        type=options.whole_number,
        metavar="N",
        help="most readings with a step for all rows (20)",
    )
    options.add(large, "--checkpoint")
    options.add_workers(parser)


def run(arguments: argparse.Namespace) -> Fit:
    """Fit, derive the terms that do not depend on labels, and judge the approximation."""
    return _of_stream(arguments) if _streams(arguments) else _of_memory(arguments)


def _of_memory(arguments: argparse.Namespace) -> Fit:
    """The fit of rows that are read at once."""
    from rbpp.mixtures.fit import fit_mixture

    for name in ("chunk_rows", "stochastic_passes", "passes"):
        if getattr(arguments, name) is not None:
            raise ValueError(f"--{name.replace('_', '-')}: expected --stream with it; got none")
    vectors, made = _vectors(arguments)
    counts = arguments.components
    with options.open_compute(arguments) as compute:
        fit = fit_mixture(
            vectors.astype("float64"),
            counts if len(counts) > 1 else counts[0],
            engine=arguments.engine,
            concentration=arguments.concentration,
            chains=arguments.chains,
            draws=arguments.draws,
            points=arguments.points,
            log_likelihood=arguments.log_likelihood,
            seed=arguments.seed,
            compute=compute,
        )
    return replace(fit, settings={**fit.settings, **made})


def _of_stream(arguments: argparse.Namespace) -> Fit:
    """The fit of rows that are read in chunks, here or by the workers of a cluster."""
    from rbpp.data.stream import CHUNK_ROWS, data_digest, row_stream, shard_files
    from rbpp.mixtures.fit import fit_mixture_stream
    from rbpp.mixtures.stream import Passes

    read = {
        "field": arguments.embedding_field,
        "weight_field": arguments.weight_field,
        "chunk_rows": arguments.chunk_rows or CHUNK_ROWS,
    }
    path = Path(os.path.abspath(arguments.data))  # workers have another current folder
    stream = row_stream(path, **read)
    given = {"stochastic": arguments.stochastic_passes, "exact": arguments.passes}
    passes = {name: value for name, value in given.items() if value is not None}
    settings = {
        "concentration": arguments.concentration,
        "chains": arguments.chains,
        "seed": arguments.seed,
    }
    work = {
        **settings,
        **read,
        **passes,
        "data": str(path),
        "content": data_digest(shard_files(path)) if arguments.checkpoint else "",
        "components": arguments.components[0],
        "parts": len(stream),
    }
    with options.open_compute(arguments, work) as compute:
        fit = fit_mixture_stream(
            stream,
            arguments.components[0],
            **settings,
            draws=arguments.draws,
            points=arguments.points,
            passes=Passes(**passes),
            compute=compute,
        )
    return replace(fit, settings={**fit.settings, "embedding": "as given", "stream": True})


def _streams(arguments: argparse.Namespace) -> bool:
    """Whether the rows are read in chunks: asked for, needed, or better for their size."""
    from rbpp.data.stream import is_large

    asked = {
        "--workers ray": arguments.workers == "ray",
        "--stream": arguments.stream,
        "--weight-field": arguments.weight_field is not None,
        "--checkpoint": arguments.checkpoint is not None,
    }
    against = {
        "standard input": arguments.data == "-",
        "--text-field": bool(arguments.text_field),
        "--embedding-model": arguments.embedding_model is not None,
        "--dimension": arguments.dimension is not None,
        "--columns": bool(arguments.columns),
        "--ignore": bool(arguments.ignore),
        "--split": arguments.split is not None,
        "--standardise": arguments.standardise != "no",
        "--log-likelihood": arguments.log_likelihood,
        f"--engine {arguments.engine}": arguments.engine in ("svi", "nuts"),
        "several numbers of --components": len(arguments.components) > 1,
    }
    reasons = [name for name, given in asked.items() if given]
    hindrances = [name for name, given in against.items() if given]
    if reasons and hindrances:
        raise ValueError(
            f"{reasons[0]}: expected numbers as they are and one fit by coordinate ascent; got "
            f"{hindrances[0]}"
        )
    return bool(reasons) or (not hindrances and is_large(arguments.data))


def _vectors(arguments: argparse.Namespace) -> tuple[np.ndarray, dict[str, Any]]:
    """Rows (n, d) of the file, and how they were made."""
    from rbpp.data.embed import Representation, embed
    from rbpp.data.reduce import principal_components
    from rbpp.data.rows import Fields, read_rows

    source = read_rows(
        arguments.data,
        "data",
        Fields(
            text=arguments.text_field,
            embedding=arguments.embedding_field,
            reading=reading(arguments, numbers_only=True),
        ),
    )
    with options.open_compute(arguments) as compute:
        (vectors,), made = embed(
            [source], Representation(model=arguments.embedding_model), compute=compute
        )
    if source.text is None and arguments.dimension is None:
        return vectors, {"embedding": str(made)}
    projection = principal_components([vectors], arguments.dimension)
    explained = float(projection.explained.sum())
    return projection(vectors), {"embedding": str(made), "explained_variance": explained}


if __name__ == "__main__":
    sys.exit(command.main([Path(__file__).stem, *sys.argv[1:]]))
