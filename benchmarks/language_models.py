"""A language model in the chain: what the theory predicts of synthetic data, and what happens.

    python benchmarks/language_models.py [STAGE …] [--size gpu] [--schedule gentle] [--data FILE …]

`data` trains a generating model, draws data sets in a grid of ways of making them, and keeps the
exact log-probabilities of outputs under their prompts. `predictions` says from the data alone what
rbpp and what else a user would take. `outcomes` post-trains a model on every data set and measures
it on real text. `report` puts both beside each other. Every stage goes on where it stopped. `data`
and `outcomes` need torch and NumPy alone.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path

import torch
from language_model import generate, smollm2_study, tune
from language_model.grid import SCHEDULES, SIZES, cells

ROOT = Path(__file__).resolve().parent.parent
STAGES = ("corpus", "data", "predictions", "outcomes", "report")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("stages", nargs="*", metavar="STAGE", help=", ".join(STAGES))
    parser.add_argument(
        "--quick", action="store_true", help="five minutes, no SmolLM2, tables in --work"
    )
    parser.add_argument("--size", choices=SIZES, help="gpu where there is one, else cpu")
    parser.add_argument("--cells", type=int, metavar="N", help="the centre and N − 1 random cells")
    parser.add_argument(
        "--schedule", choices=SCHEDULES, default="first", help="training of outcomes' fine-tunes"
    )
    parser.add_argument(
        "--data", type=Path, nargs="+", default=[], metavar="FILE", help="texts that are the task"
    )
    parser.add_argument("--name", help="of the data, in the names of files (of the first of them)")
    parser.add_argument("--work", type=Path, help="folder of what is done")
    parser.add_argument("--results", type=Path, default=ROOT / "docs" / "measurements")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--seed", type=int, default=17)
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--without-smollm2", action="store_true")
    which.add_argument("--only-smollm2", action="store_true", help="in data and outcomes")
    arguments = parser.parse_args()
    stages = arguments.stages or STAGES
    if unknown := set(stages) - set(STAGES):
        parser.error(f"expected stages of {', '.join(STAGES)}; got {', '.join(sorted(unknown))}")
    on = arguments.device
    if on == "auto":
        on = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(on)
    chosen = "quick" if arguments.quick else arguments.size or ("gpu" if on == "cuda" else "cpu")
    size, seed = SIZES[chosen].scheduled(arguments.schedule), arguments.seed
    name = arguments.name or (arguments.data[0].stem if arguments.data else "")
    suffix = f"_{name}" if name else ""
    work = arguments.work or ROOT / "build" / f"language_models_{chosen}{suffix}"
    results = work if arguments.quick else arguments.results
    prefix = f"language_models{suffix}"
    # SmolLM2 has the documentation strings as its task, and one schedule.
    small_alone = arguments.without_smollm2 or arguments.quick or arguments.data
    small_alone = small_alone or arguments.schedule != "first"
    torch.set_float32_matmul_precision("high")
    every = cells(size.cells, seed)
    if arguments.cells:
        every = [every[0], *random.Random(seed).sample(every[1:], arguments.cells - 1)]
    rows = generate.corpus(work, arguments.data, seed)
    if "corpus" in stages and not small_alone:
        smollm2_study.prepare(work, rows, seed)
    if ("data" in stages or "outcomes" in stages) and not arguments.only_smollm2:
        wanted = ("full", "less", "base") if "data" in stages else ("base",)
        models = generate.networks(work, rows, size, seed, device, wanted)
    with_smollm2 = smollm2_study.is_ready(work) and not small_alone
    if "data" in stages:
        if not arguments.only_smollm2:
            generate.generate(work, every, rows, models, size, seed, device)
        if with_smollm2:
            smollm2_study.generate(work, size, seed, device)
    if "predictions" in stages:
        from language_model import predict

        predict.predictions(work, every, rows, size, seed, results / prefix)
    if "outcomes" in stages:
        if not Path(f"{results / prefix}_predictions.csv").exists():
            parser.error("expected predictions before outcomes; run the stage predictions first")
        if not arguments.only_smollm2:
            tune.outcomes(work, every, rows, models["base"], size, seed, device)
        if with_smollm2:
            smollm2_study.outcomes(work, size, seed, device)
    if "report" in stages:
        from language_model import report

        # The page is of the documentation strings; of other texts the tables are for reading.
        page = (work if suffix else results) / f"{prefix}.md"
        report.report(work, SIZES[chosen], results / prefix, page)


if __name__ == "__main__":
    main()
