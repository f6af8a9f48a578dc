"""The paper's Figures 2, 4 and 5, with the uncertainty that they leave out.

python examples/paper_figures.py [FOLDER] [--worlds 100]
"""

import argparse
from pathlib import Path

import rbpp


def main(folder: Path, worlds: int = 100, values: range = range(2, 16)) -> list[Path]:
    """Draw the three figures into a folder, and return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    world = rbpp.world_posterior(seed=3)
    studies = {knob: rbpp.study(knob, list(values), worlds=worlds) for knob in "KJL"}
    figures = {
        "figure_2_anchor_and_synthetic": world.plot("chain").figure,
        "figure_4_kl_gap": rbpp.plots.plot_studies(studies),
        "figure_5_parts_of_the_generator": world.plot("parts").figure,
    }
    paths = []
    for name, figure in figures.items():
        paths.append(folder / f"{name}.png")
        figure.savefig(paths[-1], dpi=110)
        print(f"written: {paths[-1]}")
    return paths


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path, default=Path("demo"))
    parser.add_argument("--worlds", type=int, default=100, help="worlds at each point of Figure 4")
    arguments = parser.parse_args()
    main(arguments.folder, arguments.worlds)
