"""Coverage of the bounds of fine-tunes, and their floor, on learners whose truth is known.

    python benchmarks/fine_tunes.py [--quick] [--replications 200] [--seed 10000]

A row's 0-1 loss is 1 with probability b where it was not trained on (near 0 for six rows in ten,
uniform for the others) and a where it was: a = b (nothing is memorised), b / 2, or 0. The table has
truth, posterior mean and plug-in estimate averaged over replications, and how often the 94 %
interval covers the truth of that replication's supersample. Writes docs/measurements/fine_tunes.md.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import torch
from torch import Tensor

from rbpp.fine_tuning.cmi import (
    bounds_of_pairs,
    bounds_of_pool,
    information_of_pool,
    information_of_rows,
)
from rbpp.fine_tuning.fine_tunes import draw_bounds, plug_in_bounds
from rbpp.fine_tuning.supersample import Supersample, supersample
from rbpp.inference_data import highest_density_interval

SHOWN = (
    "generalization_gap",
    "bound_cmi_evaluated",
    "bound_cmi_samplewise",
    "bound_cmi_binary_kl",
    "bound_cmi_loss_difference",
    "bound_cmi_single_loss",
    "bound_cmi_fast_rate",
)
ROOT = Path(__file__).resolve().parent.parent
# As many draws as the interval needs: of 150 it is narrow enough to miss one truth in ten more.
DRAWS, PROBABILITY = 400, 0.94
LEARNERS = {"none": 1.0, "half": 0.5, "memorises": 0.0}


def row_errors(learner: str, pairs: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Training and held-out error (pairs, 2) of every row."""
    uniform = torch.rand(3, pairs, 2, generator=generator, dtype=torch.float64)
    held_out = torch.where(uniform[0] < 0.6, 0.02 * uniform[1], uniform[2])
    return held_out * LEARNERS[learner], held_out


def draw(
    training: Tensor, held_out: Tensor, fine_tunes: int, generator: torch.Generator
) -> Supersample:
    """A supersample of independent 0-1 losses with these errors."""
    masks = (torch.rand(fine_tunes, len(training), generator=generator) < 0.5).long()
    trained = torch.stack([masks == 0, masks == 1], dim=-1)
    error = torch.where(trained, training, held_out)
    losses = torch.rand(error.shape, generator=generator, dtype=torch.float64) < error
    return supersample(losses, masks)


def truth(training: Tensor, held_out: Tensor) -> dict[str, float]:
    """The gap and every bound at the true errors."""
    # Training and held-out loss of a pair at random, its columns in random order.
    either = [(training[:, i], held_out[:, 1 - i]) for i in (0, 1)]
    joint = [
        torch.stack([1 - a, a]).unsqueeze(1) * torch.stack([1 - b, b]).unsqueeze(0)
        for a, b in either
    ]
    table = torch.stack(joint).mean((0, -1))
    values = {
        **bounds_of_pairs(information_of_rows(training, held_out)),
        **bounds_of_pool(information_of_pool(table)),
        "generalization_gap": (held_out - training).mean(),
    }
    return {name: float(value) for name, value in values.items()}


def learner_table(
    learner: str, replications: int, pairs: int, fine_tunes: int, seed: int
) -> list[str]:
    """Rows of Markdown: every bound's average truth and estimates, and its coverage."""
    sums = {name: [0.0, 0.0, 0.0, 0.0] for name in SHOWN}
    for replication in range(replications):
        generator = torch.Generator().manual_seed(seed + replication)
        training, held_out = row_errors(learner, pairs, generator)
        data = draw(training, held_out, fine_tunes, generator)
        found, true = draw_bounds(data, DRAWS, generator), truth(training, held_out)
        plain = plug_in_bounds(data)
        plain["generalization_gap"] = float((data.held_out - data.training).mean())
        for name in SHOWN:
            draws = found[name].numpy()
            low, high = highest_density_interval(draws, PROBABILITY)
            covered = low - 1e-9 <= true[name] <= high + 1e-9
            values = true[name], float(draws.mean()), plain[name], float(covered)
            for place, value in enumerate(values):
                sums[name][place] += value / replications
    return [
        f"| {learner} | `{name}` | {true_mean:.3f} | {posterior:.3f} | {plain_mean:.3f} "
        f"| {100 * covered:.0f} % |"
        for name, (true_mean, posterior, plain_mean, covered) in sums.items()
    ]


def main() -> None:
    """Run every learner, and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="8 replications, nothing written")
    parser.add_argument("--replications", type=int, default=200)
    parser.add_argument("--pairs", type=int, default=60)
    parser.add_argument("--fine-tunes", type=int, default=30, metavar="K")
    parser.add_argument("--few", type=int, default=5, help="fine-tunes of the hard case, half (5)")
    parser.add_argument("--seed", type=int, default=10_000, help="of the first replication")
    parser.add_argument("--learner", choices=LEARNERS, action="append", help="of all three")
    parser.add_argument(
        "--output", type=Path, default=ROOT / "docs" / "measurements" / "fine_tunes.md"
    )
    arguments = parser.parse_args()
    replications = 8 if arguments.quick else arguments.replications
    chance = 1.96 * math.sqrt(PROBABILITY * (1 - PROBABILITY) / replications)
    lines = [
        "# Coverage of the bounds of fine-tunes",
        "",
        f"Output of `python benchmarks/fine_tunes.py --replications {replications} --fine-tunes "
        f"{arguments.fine_tunes} --few {arguments.few} --seed {arguments.seed}`.",
        "",
        "Simulated learners of known error, none (nothing memorised), half and memorises (the "
        "training error is all, half or none of the held-out error). *Covered*: share of "
        f"replications whose {PROBABILITY:.0%} interval holds the bound at the true errors "
        f"(± {chance:.1%} by chance). With few fine-tunes the prior, half of it on nothing being "
        "memorised, counts for much: it keeps the bounds of *none* near 0, and draws those of "
        "*half* towards it.",
    ]
    print("\n".join(lines))
    cases = (arguments.fine_tunes, arguments.learner or LEARNERS), (arguments.few, ["half"])
    for fine_tunes, learners in cases:
        head = [
            "",
            f"## k = {fine_tunes} fine-tunes, n = {arguments.pairs} pairs",
            "",
            "| learner | term | truth | posterior | plug-in | covered |",
            "|---|---|---:|---:|---:|---:|",
        ]
        print("\n".join(head), flush=True)
        lines += head
        for learner in learners:
            rows = learner_table(learner, replications, arguments.pairs, fine_tunes, arguments.seed)
            print("\n".join(rows), flush=True)
            lines += rows
    if not arguments.quick:
        arguments.output.write_text("\n".join([*lines, ""]), encoding="utf-8")


if __name__ == "__main__":
    main()
