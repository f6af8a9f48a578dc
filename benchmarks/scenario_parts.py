"""Parts that overlap: do the ends of the shares hold where rows lie between two parts?

    python benchmarks/scenario_parts.py [--apart 3] [--seeds 4] [--first 200]

Five Gaussian parts in 8 dimensions, by one author. Target and synthetic rows share three parts;
the target alone has a fourth, the synthetic rows a fifth; anchors have two of the three. Shares of
0, 5, 20 and 40 %, 300 and 1,000 rows. `docs/measurements/scenarios.md` has what seeds from 200 on
gave; what was chosen was chosen on seeds from 100 on.
"""

from __future__ import annotations

import argparse

import numpy as np

from rbpp.assessment.off_task import OffTask, VectorKind, novel, off_task, uncovered
from rbpp.assessment.sources import read_sources
from rbpp.assessment.weighted_rows import Draws

SHARES, SIZES = (0.0, 0.05, 0.2, 0.4), (300, 1000)
COMMON = np.array([0.4, 0.3, 0.3])
# Which rows are planted: by name of the share, the source and the part.
PLANTED = {"irrelevant": ("synthetic", 4), "uncovered": ("target", 3), "novel": ("synthetic", 2)}


def parts(
    share: float, size: int, apart: float, seed: int
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Rows (size, 8) and the part of every row (size,), by source."""
    random = np.random.default_rng([seed, size, int(apart * 10), int(share * 100)])
    centres = np.eye(5, 8) * apart / np.sqrt(2)
    centres = centres @ np.linalg.qr(random.normal(size=(8, 8)))[0]
    weights = {
        "target": [*COMMON * (1 - share), share, 0],
        "synthetic": [*COMMON * (1 - share), 0, share],
        "anchor": [0.57, 0.43, 0, 0, 0],
    }
    rows, part = {}, {}
    for name, weight in weights.items():
        part[name] = random.choice(5, size, p=weight)
        rows[name] = centres[part[name]] + random.normal(size=(size, 8))
    return rows, part


def shares(rows: dict[str, np.ndarray]) -> dict[str, OffTask]:
    """What is irrelevant, uncovered and novel."""
    sources = read_sources(rows)
    target, synthetic, anchor = map(sources.content, ("target", "synthetic", "anchor"))
    how = Draws(400), VectorKind(numbers=sources.lifted)
    irrelevant = off_task(target, synthetic, *how)
    return {
        "irrelevant": irrelevant,
        "uncovered": uncovered(target, synthetic, *how),
        "novel": novel(anchor, irrelevant, synthetic, *how),
    }


def main() -> None:
    """Prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--apart", type=float, default=3.0, help="standard deviations")
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--first", type=int, default=200, help="of the seeds")
    args = parser.parse_args()
    found: dict[str, list[tuple[float, OffTask]]] = {name: [] for name in PLANTED}
    for seed in range(args.first, args.first + args.seeds):
        for size in SIZES:
            for share in SHARES:
                rows, part = parts(share, size, args.apart, seed)
                for name, one in shares(rows).items():
                    source, planted = PLANTED[name]
                    found[name].append((float((part[source] == planted).mean()), one))
    print("| share | runs | mean true | mean found | [at least, at most] holds | width |")
    print("|---|---|---|---|---|---|")
    for name, runs in found.items():
        held = np.mean([one.at_least <= true <= one.at_most for true, one in runs])
        width = np.mean([one.at_most - one.at_least for _, one in runs])
        means = [np.mean([true for true, _ in runs]), np.mean([one.share for _, one in runs])]
        print(
            f"| {name} | {len(runs)} | {means[0]:.2f} | {means[1]:.2f} | {held:.0%} | {width:.2f} |"
        )


if __name__ == "__main__":
    main()
