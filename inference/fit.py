"""A posterior over the Gaussian mixture that rows come from.

DATA holds one row per line or record: .npy, .npz, CSV, Parquet, JSON, JSON lines, or a folder of
shards. Rows are numbers, or text that is embedded first; --dimension, and text always, means their
principal components, and then every term is one of these coordinates. Restarts are chains: where
R-hat between them is above 1.05, or Pareto k of the approximation above 0.7, the audit says so.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rbpp import command, options

if TYPE_CHECKING:
    import numpy as np

    from rbpp.mixtures.component_count import ComponentCount

# Vehtari, Simpson, Gelman, Yao and Gabry (2024) for k; Vehtari et al. (2021) for R-hat, whose 1.01
# is for samplers: independent restarts of an approximation agree or clearly do not.
LARGEST_PARETO_K, LARGEST_RHAT = 0.7, 1.05
SHOWN_DIMENSIONS = 4


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of this program."""
    parser.add_argument("data", metavar="DATA", type=Path, help="file or folder of rows")
    parser.add_argument(
        "--components",
        type=options.positive_integers,
        required=True,
        metavar="K",
        help="how many; of several, as 2..8 or 2,4,8, the one that predicts held-out rows best",
    )
    parser.add_argument(
        "--engine",
        choices=["cavi", "svi", "nuts"],
        default="cavi",
        help="coordinate ascent, stochastic gradients, or sampling (cavi)",
    )
    parser.add_argument("--embedding-field", metavar="F", help="the field with a vector per row")
    parser.add_argument(
        "--text-field",
        metavar="F",
        action="append",
        default=[],
        help="a text field; several are joined in order",
    )
    parser.add_argument(
        "--embedding-model",
        metavar="PATH_OR_NAME",
        help="sentence-transformers model for text; TF-IDF and truncated SVD without it",
    )
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
        "--restarts", type=options.positive_integer, default=4, metavar="N", help="chains (4)"
    )
    parser.add_argument(
        "--draws",
        type=options.positive_integer,
        default=1000,
        metavar="N",
        help="posterior draws per chain (1000)",
    )
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


def run(arguments: argparse.Namespace) -> command.Outcome:
    """Fit, derive the terms that do not depend on labels, and judge the approximation."""
    import torch

    from rbpp import plots
    from rbpp.container import add_terms
    from rbpp.mixtures.component_count import compare_component_counts
    from rbpp.mixtures.divergences import entropy
    from rbpp.mixtures.posterior import fit_mixture
    from rbpp.randomness import generator, spawn

    vectors, made = _vectors(arguments)
    rows = torch.as_tensor(vectors, dtype=torch.float64, device=arguments.device)
    settings = {
        "engine": arguments.engine,
        "concentration": arguments.concentration,
        "restarts": arguments.restarts,
        "draws": arguments.draws,
        "seed": arguments.seed,
    }
    comparison = []
    if len(arguments.components) > 1:
        comparison = compare_component_counts(rows, arguments.components, **settings)
        posterior = comparison[0].posterior.relabelled()
    else:
        posterior = fit_mixture(rows, arguments.components[0], **settings).relabelled()
    points = generator(spawn(arguments.seed, "entropy"), arguments.device)
    found = entropy(posterior.mixture, draws=arguments.points, generator=points)
    weights = posterior.mixture.weights
    data = add_terms(
        posterior.to_inference_data(
            rows if arguments.log_likelihood else None,
            settings={"seed": arguments.seed, "row_count": len(rows)},
        ),
        {
            "entropy": found.value,
            "entropy_mcse": found.standard_error,
            # The number of equally weighted components with the same entropy of weights.
            "effective_components": torch.special.entr(weights).sum(-1).exp(),
        },
    )
    return command.Outcome(
        data=data,
        audit=_audit(data),
        extra={"comparison": [_compared(entry) for entry in comparison]} if comparison else {},
        notes="\n\n".join(
            [_component_table(data)] + ([_comparison_table(comparison)] if comparison else [])
        ),
        settings={
            "components": posterior.components,
            "components_compared": arguments.components,
            "rows": len(rows),
            "dimension": rows.shape[1],
            "digest": posterior.digest,
            **made,
        },
        figures={"fit": lambda: plots.plot_forest(data, ["entropy", "effective_components"])},
    )


def _vectors(arguments: argparse.Namespace) -> tuple[np.ndarray, dict[str, Any]]:
    """Rows (n, d) of the file, and how they were made."""
    from rbpp.data.embed import embed
    from rbpp.data.reduce import principal_components
    from rbpp.data.rows import read_rows

    source = read_rows(
        arguments.data,
        "data",
        text_fields=arguments.text_field,
        embedding_field=arguments.embedding_field,
    )
    (vectors,), made = embed(
        [source],
        model=arguments.embedding_model,
        device=arguments.device,
        seed=arguments.seed,
        quiet=arguments.quiet,
    )
    if source.text is None and arguments.dimension is None:
        return vectors, {"embedding": made}
    projection = principal_components([vectors], arguments.dimension)
    explained = float(projection.explained.sum())
    return projection(vectors), {"embedding": made, "explained_variance": explained}


def _component_table(data: Any) -> str:
    """Weight and mean of every component, in the order of the draw of highest density."""
    from rbpp.display import align

    posterior = data["posterior"]
    lines = [["component", "weight", "sd", "mean"]]
    weight, mean = posterior["weight"], posterior["mean"].mean(("chain", "draw")).values
    for index, place in enumerate(mean):
        draws = weight.isel(component=index)
        shown = ", ".join(f"{value:.4g}" for value in place[:SHOWN_DIMENSIONS])
        more = ", …" if len(place) > SHOWN_DIMENSIONS else ""
        spread = float(draws.std())
        lines.append(
            [str(index), f"{float(draws.mean()):.3f}", f"{spread:.3f}", f"({shown}{more})"]
        )
    return align(lines)


def _compared(entry: ComponentCount) -> dict[str, float]:
    """A count with its expected log predictive density of held-out rows, best first."""
    return {
        "components": entry.components,
        "elpd": entry.elpd.value.item(),
        "elpd_se": entry.elpd.standard_error.item(),
        "difference": entry.difference.value.item(),
        "difference_se": entry.difference.standard_error.item(),
    }


def _comparison_table(comparison: list[ComponentCount]) -> str:
    from rbpp.display import align

    entries = [_compared(entry) for entry in comparison]
    return align([list(entries[0]), *([f"{v:.5g}" for v in e.values()] for e in entries)])


def _audit(data: Any) -> list[dict[str, Any]]:
    """Whether restarts agree, and whether importance weights could correct the approximation."""
    import arviz

    posterior, statistics = data["posterior"], data["sample_stats"]
    audit = []
    if posterior.sizes["chain"] > 1:
        rhat = float(arviz.rhat(data, var_names=["entropy"])["entropy"])
        audit.append(
            {
                "assumption": "restarts agree on the entropy",
                "measure": "R-hat",
                "measured": rhat,
                "threshold": LARGEST_RHAT,
                "verdict": _verdict(rhat, LARGEST_RHAT),
            }
        )
    pareto_k = float(statistics["pareto_k"].max())
    audit.append(
        {
            "assumption": "the approximation is near the posterior",
            "measure": "Pareto k",
            "measured": pareto_k,
            "threshold": LARGEST_PARETO_K,
            "verdict": _verdict(pareto_k, LARGEST_PARETO_K),
        }
    )
    return audit


def _verdict(measured: float, threshold: float) -> str:
    if measured != measured:  # nuts approximates nothing; one draw measures nothing
        return "inconclusive"
    return "consistent" if measured <= threshold else "violated"


if __name__ == "__main__":
    sys.exit(command.main([Path(__file__).stem, *sys.argv[1:]]))
