"""Stage `predictions`: what rbpp says of every data set before anything is trained on it.

Of each cell's first data set, as a user would have one: exact informations of the outputs
(`rbpp channel`), shares and divergences (`rbpp assess`), the ranking score (`rbpp compare`), the
bounds, and what a user would take otherwise.
"""

from __future__ import annotations

import json
import math
import os
import warnings
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from . import smollm2_study, text
from .generate import Arrays, load, say
from .grid import SMOOTHING, Cell, Size

Record = dict[str, Any]
_DIMENSION = 8  # of the embedding that mixtures see
_ROWS = 128  # at most of a data set, and of real rows, that `rbpp assess` sees: seconds a cell
# Of the loss on real text: which way each predictor is to order the cells, written down beforehand.
# 1: more of it, more loss; −1: more of it, less loss.
SIGNS = {
    "information_gain": -1,  # diversity bounds GGMI from above (Theorem 4.10)
    "information_prompt_output": -1,  # outputs that heed their prompts are of the task
    "bound_synthetic": 1,  # Theorem 4.7
    "bound_synthetic_sharp": 1,
    "bound_flow": 1,  # Lemma 4.6
    "generation_divergence": 1,  # Lemma 3.1
    "total_divergence": 1,
    "irrelevant_share": 1,
    "uncovered_share": 1,
    "kl_gap": -1,  # KL(π_anchor ‖ G) − KL(π_gen ‖ G), Section 4.4
    "kl_gap_coverage": -1,
    "ggmi": -1,  # Definition 4.9
    "compare_score": -1,
    "rows": -1,
    "perplexity": 1,
    "embedding_distance": 1,
    "frechet_distance": 1,
    "distinct_2": -1,
    "self_overlap": 1,  # of a data set with itself, as self-BLEU
    "overlap_with_real": -1,
}
BASELINES = (
    "rows",
    "perplexity",
    "embedding_distance",
    "frechet_distance",
    "distinct_2",
    "self_overlap",
    "overlap_with_real",
)
# What the theory says of the loss as one knob grows, all else as in the centre.
ORDERINGS = {
    "rows": (-1, "n under the root of Lemma 4.6 and Theorem 4.7"),
    "anchors": (-1, "m under the root of Lemma 4.8; more anchors, more of H(S_anchor)"),
    "temperature": (-1, "ΔI grows, and with it the bound of GGMI (Theorem 4.10)"),
    "examples": (-1, "I(p; M(p)) grows: outputs of the task"),
    "off_task": (1, "task-irrelevant components L, TV(D, D_gen)"),
    "noise": (1, "δ_ε of Lemma 4.5, H(S_gen) − H(M(p))"),
    "filtered": (-1, "curation lowers TV(D, D_gen), if the filter knows the task"),
    "generator": (1, "TV(D, D_M): trained on less is further from the task"),
}


def predictions(
    work: Path, every: list[Cell], rows: Arrays, size: Size, seed: int, prefix: Path
) -> None:
    """The table of predictions, and the orderings that the theory predicts."""
    axes = real_embeddings(work, rows)
    jobs = [(path, name) for path in _files(work) for name in _names(path)]
    settings = {cell.name: cell for cell in every}
    small = smollm2_study.size_of(size)
    settings |= {cell.name: cell for cell in smollm2_study.cells(small.cells, seed)}
    records: list[Record] = []
    todo = [job for job in jobs if not _kept(work, job[1]).exists()]
    say(f"{len(todo)} of {len(jobs)} cells to predict")
    one = partial(_predict, work, axes)
    with ProcessPoolExecutor(_processes(), initializer=_quiet) as pool:
        for number, name in enumerate(pool.map(one, [(p, n, settings[n]) for p, n in todo])):
            if number % 20 == 0:
                say(f"predicted {number + 1}: {name}")
    for _, name in jobs:
        record = json.loads(_kept(work, name).read_text(encoding="utf-8"))
        records.append({"name": name, **settings[name].knobs(), **record})
    table = pd.DataFrame(records).sort_values("name")
    scores = _scores(jobs, axes)
    table["compare_score"] = [scores[name] for name in table["name"]]
    # KL(G ‖ π_anchor) − KL(G ‖ π_gen) = E_G log π_gen − E_G log π_anchor.
    table["kl_gap_coverage"] = [scores[name] - scores[f"{name} anchors"] for name in table["name"]]
    table.to_csv(f"{prefix}_predictions.csv", index=False, float_format="%.5g")
    orderings = {
        knob: {"loss_as_it_grows": sign, "because": why} for knob, (sign, why) in ORDERINGS.items()
    }
    text_of = json.dumps({"predictors": SIGNS, "knobs": orderings}, indent=1, ensure_ascii=False)
    Path(f"{prefix}_orderings.json").write_text(text_of + "\n", encoding="utf-8")


def _files(work: Path) -> list[Path]:
    return sorted([*(work / "data").glob("*.npz"), *(work / "smollm2").glob("*.npz")])


def _names(path: Path) -> list[str]:
    with np.load(path) as found:
        return json.loads(str(found["cells"]))


def _kept(work: Path, name: str) -> Path:
    return work / "predictions" / f"{name}.json"


def _processes() -> int:
    """As many as there are cores; one where the user allows one thread (OMP_NUM_THREADS)."""
    return min(len(os.sched_getaffinity(0)), torch.get_num_threads())


def _quiet() -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")


def real_embeddings(work: Path, rows: Arrays) -> Arrays:
    """Embeddings of real rows on the axes of the synthetic rows' own, of both networks."""
    found = load(work / "real.npz")
    real = {part: found[f"{part}_embedding"] for part in ("anchor", "target")}
    if (work / "smollm2_real.npz").exists():
        other = load(work / "smollm2_real.npz")
        real |= {f"smollm2_{p}": other[f"{p}_embedding"] for p in ("anchor", "target")}
    texts = {f"{part}_rows": rows[part] for part in ("anchor", "target")}
    if (work / "smollm2_rows.npz").exists():
        own = load(work / "smollm2_rows.npz")
        texts |= {f"smollm2_{part}_rows": own[part] for part in ("anchor", "target")}
    return {k: v.astype(float)[:, :_DIMENSION] for k, v in real.items()} | texts


def _predict(work: Path, real: Arrays, job: tuple[Path, str, Cell]) -> str:
    path, name, cell = job
    with np.load(path) as file:
        made = {
            key.removeprefix(f"{name}/0/"): file[key]
            for key in file.files
            if key.startswith(f"{name}/0/")
        }
    large = name.startswith("smollm2")
    prefix, length, letters = ("smollm2_", 32, 49152) if large else ("", 64, text.SEPARATOR)
    record = _exact(made, cell, length, math.log(letters / SMOOTHING))
    anchors = real[f"{prefix}anchor"][made["anchors"].astype(int)]
    embedded = made["embedding"][:, :_DIMENSION].astype(float)
    target = real[f"{prefix}target"]
    record |= _assessed(anchors, embedded, target)
    record |= _baselines(made, embedded, target, real[f"{prefix}target_rows"], length, large)
    kept = _kept(work, name)
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.write_text(json.dumps(record), encoding="utf-8")
    return name


def _exact(made: Arrays, cell: Cell, length: int, largest: float) -> Record:
    """From log-probabilities: nats of a row, and the bounds of a data set of n rows."""
    from rbpp import channel_information, log_probabilities

    matrix = made["output_matrix"].astype(float)
    unprompted = made["output_unprompted"].astype(float)
    prompt = made["matrix_prompt"].astype(int)
    known = log_probabilities(matrix, prompt, log_prob_unprompted=unprompted)
    found = channel_information(known, draws=200)
    count = len(matrix)
    terms = {key: float(value.value.mean()) / count for key, value in found.terms.items()}
    sides = {
        f"information_prompt_output_{side}": float(getattr(estimate, side).value.mean()) / count
        for estimate in [found.terms["information_prompt_output"]]
        for side in ("lower", "upper")
        if getattr(estimate, side) is not None
    }
    # All outputs before curation, and those that the filter has kept.
    gain = -float(made["output_log_prob"].mean())
    kept_gain = -float(made["own_log_prob"].mean())
    upper = sides.get("information_prompt_output_upper", terms["information_prompt_output"])
    divergence = _divergence(made)
    root = largest * math.sqrt(0.5)  # σ = C / 2: sqrt(2 σ² I / n) = C sqrt(I / 2n)
    # From data alone: I(S_gen; W) ≤ I(e_p; W) + I(e_M; W | e_p) ≤ I(p; M(p)) + ΔI = H(M(p)).
    flow = root * math.sqrt(3 * gain + upper)  # ΔI + B_syn + H(e_M), each at its data's maximum
    chain = root * math.sqrt(gain + upper)
    return {
        "information_gain": gain,
        "information_gain_kept": kept_gain,
        "information_gain_channel": terms["information_gain"],
        "information_prompt_output": terms["information_prompt_output"],
        **sides,
        "entropy_output": terms["entropy_output"],
        "information_gain_token": gain / length,
        "generation_divergence": divergence,
        "bound_flow": flow,
        "bound_chain": chain,
        "bound_synthetic": largest * (1 + divergence) + flow,
        "loss_bound": largest,
    }


def _divergence(made: Arrays) -> float:
    """TV(D_M, D_gen), D_gen the even mixture over the prompts of the data set: both are exact."""
    sides = []
    for name in ("output", "unprompted"):
        matrix = made[f"{name}_matrix"].astype(float)
        largest = matrix.max(1, keepdims=True)
        mixed = np.log(np.exp(matrix - largest).mean(1)) + largest[:, 0]
        sides.append(np.tanh(np.abs(mixed - made[f"{name}_unprompted"]) / 2).mean())
    return float(np.mean(sides))


def _assessed(anchors: np.ndarray, made: np.ndarray, target: np.ndarray) -> Record:
    from rbpp.assessment.assess import assess

    wanted = {
        "irrelevant_share",
        "uncovered_share",
        "kl_gap",
        "kl_gap_coverage",
        "kl_synthetic",
        "total_divergence",
        "distinguishability",
        "information_synthetic_learner",
        "information_anchor_learner",
        "ggmi",
        "bound_synthetic_sharp",
        "effective_components",
    }
    found = assess(anchors, made[:_ROWS], target=target[:_ROWS], chains=1, draws=50)
    values = {k: float(v.value.mean()) for k, v in found.terms.items() if k in wanted}
    return values


def _scores(jobs: list[tuple[Path, str]], real: Arrays) -> dict[str, float]:
    """The score of `rbpp compare` of every cell and of its anchors, against the same real rows."""
    from rbpp.assessment.compare import compare

    scores: dict[str, float] = {}
    for prefix in ("", "smollm2_"):
        named = {}
        for path, name in jobs:
            if name.startswith("smollm2") == bool(prefix):
                with np.load(path) as file:
                    named[name] = file[f"{name}/0/embedding"][:, :_DIMENSION].astype(float)
                    anchors = file[f"{name}/0/anchors"].astype(int)
                    named[f"{name} anchors"] = real[f"{prefix}anchor"][anchors]
        for start in range(0, len(named), 20):
            part = dict(list(named.items())[start : start + 20])
            ranked = compare(part, real[f"{prefix}target"], shares=False, draws=50)
            for line in ranked.ranking:
                scores[line["name"]] = float(line["score"])
    return scores


def _baselines(
    made: Arrays,
    embedded: np.ndarray,
    target: np.ndarray,
    real: np.ndarray,
    length: int,
    large: bool,
) -> Record:
    rows = made["synthetic"]
    words = [_words(row, large) for row in rows]
    pairs = [list(pairwise(line)) for line in words]
    counts = Counter(pair for line in pairs for pair in line)
    total = max(1, sum(counts.values()))
    repeated = [sum(counts[p] > 1 for p in line) / max(1, len(line)) for line in pairs]
    wanted = [pair for row in real for pair in pairwise(_words(row, large))]
    return {
        "perplexity": math.exp(-float(made["base_log_prob"].mean()) / length),
        "embedding_distance": float(np.linalg.norm(embedded.mean(0) - target.mean(0))),
        "frechet_distance": _frechet(embedded, target),
        "distinct_2": len(counts) / total,
        "self_overlap": float(np.mean(repeated)),
        "overlap_with_real": sum(pair in counts for pair in wanted) / max(1, len(wanted)),
    }


def _words(row: np.ndarray, large: bool) -> list[Any]:
    return row.tolist() if large else text.decode(row[None])[0].split()


def _frechet(first: np.ndarray, second: np.ndarray) -> float:
    """Squared Fréchet distance of the Gaussians of both embeddings."""
    a, b = np.cov(first.T), np.cov(second.T)
    values = np.linalg.eigvals(a @ b).real.clip(0)
    shift = first.mean(0) - second.mean(0)
    return float(shift @ shift + np.trace(a + b) - 2 * np.sqrt(values).sum())
