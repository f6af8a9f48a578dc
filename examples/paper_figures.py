"""The paper's Figures 2, 4 and 5, with the uncertainty that they leave out.

python examples/paper_figures.py [FOLDER] [--worlds 100]
"""

import argparse
from pathlib import Path

from rbpp import kl_gap_study as study
from rbpp import plots


def main(folder: Path, worlds: int = 100, values: range = range(2, 16)) -> list[Path]:
    """Draw the three figures into a folder, and return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    world = study.world_posterior(seed=3)
    sweeps = {knob: study.sweep(knob, list(values), worlds=worlds) for knob in "KJL"}
    figures = {
        "figure_2_anchor_and_synthetic": plots.plot_chain(world).figure,
        "figure_4_kl_gap": plots.plot_kl_gap(sweeps)[0, 0].figure,
        "figure_5_parts_of_the_generator": plots.plot_parts(world).figure,
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
