"""Mutual information of paired rows, with its posterior.

X and Y hold one row per line or record, in the same order: .npy, .npz, CSV, Parquet, JSON or JSON
lines with numbers, or a vector per row. No conditional density is needed: mixtures of the joint
rows, on margins and of sizes that rows left out decide, give the information and its interval. The
audit says whether the nearest neighbours of the rows see structure that the mixtures miss.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rbpp import command, options

if TYPE_CHECKING:
    import numpy as np

    from rbpp.paired.mutual_information import MutualInformation

# Vehtari, Simpson, Gelman, Yao and Gabry (2024).
LARGEST_PARETO_K = 0.7
# Standard errors of the neighbours' density by which it must exceed the model's to count.
LARGEST_EXCESS = 2.0
SHOWN_MODELS = 6


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of this program."""
    parser.add_argument("x", metavar="X", type=Path, help="file or folder of the rows of X")
    parser.add_argument("y", metavar="Y", type=Path, help="those of Y, in the same order")
    parser.add_argument("--x-field", metavar="F", help="the field of X with a vector per row")
    parser.add_argument("--y-field", metavar="F", help="the field of Y with a vector per row")
    options.add_draws(parser)
    parser.add_argument(
        "--chains",
        type=options.positive_integer,
        default=1,
        metavar="N",
        help="independent partitions into folds, each fitted anew (1)",
    )
    parser.add_argument(
        "--components",
        type=options.positive_integer,
        default=128,
        metavar="K",
        help="largest mixture considered (128)",
    )


def run(arguments: argparse.Namespace) -> command.Outcome:
    """Estimate, and judge the models behind the estimate."""
    from rbpp import plots
    from rbpp.paired.mutual_information import mutual_information

    result = mutual_information(
        _numbers(arguments.x, "X", arguments.x_field),
        _numbers(arguments.y, "Y", arguments.y_field),
        draws=arguments.draws,
        chains=arguments.chains,
        components=arguments.components,
        seed=arguments.seed,
        device=arguments.device,
    )
    data = result.to_inference_data({"seed": arguments.seed})
    return command.Outcome(
        data=data,
        audit=_audit(result),
        notes=_model_table(result),
        extra={"models": [vars(model) for model in result.models]},
        settings={
            "rows": result.rows,
            "dim_x": result.dim_x,
            "dim_y": result.dim_y,
            "margins": result.margins,
        },
        figures={"mi": lambda: plots.plot_forest(data, ["mutual_information"], arguments.hdi_prob)},
    )


def _numbers(path: Path, name: str, field: str | None) -> np.ndarray:
    from rbpp.data.rows import read_rows

    try:
        rows = read_rows(path, name, embedding_field=field)
    except ValueError as error:
        option, columns = f"--{name.lower()}-field", str(error).rpartition("the file has ")[2]
        if "--embedding-field" not in str(error):  # an option of other programs
            raise
        raise ValueError(
            f"{path}: Expected rows of numbers, or the name of the field with the vectors of "
            f"{name} ({option}); got no name, and the file has {columns}"
        ) from error
    if rows.embedding is None:
        raise ValueError(f"{path}: Expected rows of numbers for {name}; got text")
    return rows.embedding


def _audit(result: MutualInformation) -> list[dict[str, Any]]:
    """Whether the model is as dense as the rows are, and its approximation near the posterior."""
    held_out, neighbours = result.held_out_log_density, result.neighbour_log_density
    excess = (neighbours.value - held_out.value).item()
    error = (held_out.standard_error.square() + neighbours.standard_error.square()).sqrt().item()
    pareto_k = float(result.pareto_k.max())
    return [
        {
            "assumption": "the joint model misses no structure that nearest neighbours see",
            "measure": "log density per row: neighbours less model left out",
            "measured": excess,
            "threshold": LARGEST_EXCESS * error,
            "verdict": _verdict(excess, LARGEST_EXCESS * error),
        },
        {
            "assumption": "the variational posterior of the best single mixture is near the exact",
            "measure": "Pareto k",
            "measured": pareto_k,
            "threshold": LARGEST_PARETO_K,
            "verdict": _verdict(pareto_k, LARGEST_PARETO_K),
        },
    ]


def _verdict(measured: float, threshold: float) -> str:
    if measured != measured:  # no mixture was fitted
        return "inconclusive"
    return "consistent" if measured <= threshold else "violated"


def _model_table(result: MutualInformation) -> str:
    from rbpp.display import align

    lines = [["margins", "components", "weight", "left out", "fitted"]]
    for model in result.models[:SHOWN_MODELS]:
        count = str(model.components) if model.components else "averaged"
        numbers = (model.weight, model.held_out, model.fitted)
        lines.append([model.margins, count, *(f"{value:.3f}" for value in numbers)])
    return align(lines)


if __name__ == "__main__":
    sys.exit(command.main([Path(__file__).stem, *sys.argv[1:]]))
