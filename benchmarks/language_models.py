"""A language model in the chain: what the theory predicts of synthetic data, and what happens.

    python benchmarks/language_models.py data|predictions|outcomes|report [--size gpu] [--work DIR]

`data` trains a generating model, draws data sets in a grid of ways of making them, and keeps the
exact log-probabilities of outputs under their prompts. `predictions` says from the data alone what
rbpp and what else a user would take. `outcomes` post-trains a model on every data set and measures
it on real text. `report` puts both beside each other. Every stage goes on where it stopped. `data`
and `outcomes` need torch and NumPy alone.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from language_model import generate, smollm2_study, tune
from language_model.grid import SIZES, cells

ROOT = Path(__file__).resolve().parent.parent
STAGES = ("corpus", "data", "predictions", "outcomes", "report")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("stages", nargs="*", metavar="STAGE", help=", ".join(STAGES))
    parser.add_argument(
        "--quick", action="store_true", help="five minutes, no SmolLM2, tables in --work"
    )
    parser.add_argument("--size", choices=SIZES, help="gpu where there is one, else cpu")
    parser.add_argument("--data", type=Path, metavar="DIR", help="more text of the task, *.txt")
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
    name = arguments.device
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(name)
    chosen = "quick" if arguments.quick else arguments.size or ("gpu" if name == "cuda" else "cpu")
    size, seed = SIZES[chosen], arguments.seed
    arguments.without_smollm2 |= arguments.quick
    work = arguments.work or ROOT / "build" / f"language_models_{chosen}"
    results = work if arguments.quick else arguments.results
    torch.set_float32_matmul_precision("high")
    every = cells(size.cells, seed)
    rows = generate.corpus(work, arguments.data, seed)
    if "corpus" in stages and not arguments.without_smollm2:
        smollm2_study.prepare(work, rows, seed)
    if ("data" in stages or "outcomes" in stages) and not arguments.only_smollm2:
        wanted = ("full", "less", "base") if "data" in stages else ("base",)
        models = generate.networks(work, rows, size, seed, device, wanted)
    with_smollm2 = smollm2_study.is_ready(work) and not arguments.without_smollm2
    if "data" in stages:
        if not arguments.only_smollm2:
            generate.generate(work, every, rows, models, size, seed, device)
        if with_smollm2:
            smollm2_study.generate(work, size, seed, device)
    if "predictions" in stages:
        from language_model import predict

        predict.predictions(work, every, rows, size, seed, results)
    if "outcomes" in stages:
        if not (results / "language_models_predictions.csv").exists():
            parser.error("expected predictions before outcomes; run the stage predictions first")
        if not arguments.only_smollm2:
            tune.outcomes(work, every, rows, models["base"], size, seed, device)
        if with_smollm2:
            smollm2_study.outcomes(work, size, seed, device)
    if "report" in stages:
        from language_model import report

        report.report(work, every, size, results)


if __name__ == "__main__":
    main()
