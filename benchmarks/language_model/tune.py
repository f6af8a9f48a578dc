"""Stage `outcomes`: the model is post-trained on every data set, and its losses are measured."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from . import network
from .generate import Arrays, load, save, say
from .grid import SMOOTHING, Cell, Size

_OWN = 256  # rows of a data set on which the training loss is measured


def outcomes(
    work: Path,
    every: list[Cell],
    rows: Arrays,
    base: network.Weights,
    size: Size,
    seed: int,
    device: torch.device,
) -> None:
    """Losses and W of every fine-tune on synthetic rows, and on anchors alone."""
    _of_anchors(work, every, rows, base, size, seed, device)
    _of_supersample(work, base, size, seed, device)
    test = torch.from_numpy(rows["test"]).to(device)
    for path in sorted((work / "data").glob("*.npz")):
        kept = work / size.outcomes / path.name
        if kept.exists():
            continue
        started = time.perf_counter()
        found, made = {}, load(path)
        names = json.loads(str(made["cells"]))
        jobs = [(name, one) for name in names for one in range(size.replicates)]
        for start in range(0, len(jobs), size.tune_models):
            part = jobs[start : start + size.tune_models]
            data = [made[f"{name}/{one}/synthetic"] for name, one in part]
            fresh = [made[f"{name}/{one}/fresh"] for name, one in part]
            measured = _measured(base, data, fresh, test, size, seed + start, device)
            for place, (name, one) in enumerate(part):
                for key, value in measured.items():
                    found[f"{name}/{one}/{key}"] = value[place]
        save(kept, {"cells": made["cells"], **_with_coordinates(found, names, size)})
        say(f"{path.stem}: {len(jobs)} fine-tunes in {time.perf_counter() - started:.1f} s")


def _measured(
    base: network.Weights,
    data: list[np.ndarray],
    fresh: list[np.ndarray],
    test: Tensor,
    size: Size,
    seed: int,
    device: torch.device,
) -> Arrays:
    """Losses of W with its noise, and W without: arrays with the data sets in front."""
    generator = torch.Generator().manual_seed(seed)
    tensors = [torch.from_numpy(rows).to(device) for rows in data]
    centres = network.fine_tune(
        base,
        tensors,
        steps=size.tune_steps,
        batch=size.tune_batch,
        rate=size.tune_rate,
        generator=generator,
    )
    noise = torch.randn(centres.shape, generator=generator).to(device)
    parameters = centres + size.noise * noise
    batch = 64
    own = _padded([rows[:_OWN] for rows in tensors])
    new = _padded([torch.from_numpy(rows).to(device) for rows in fresh])
    found = {
        "test": network.losses(base, parameters, test, SMOOTHING, batch),
        "test_without_noise": network.losses(base, centres, test[:128], SMOOTHING, batch),
        "training": network.losses(base, parameters, own, SMOOTHING, batch),
        "fresh": network.losses(base, parameters, new, SMOOTHING, batch),
    }
    kept: Arrays = {key: value.cpu().numpy().astype(np.float16) for key, value in found.items()}
    kept["training"] = [row[: len(d)] for row, d in zip(kept["training"], data, strict=True)]
    kept["fresh"] = [row[: len(d)] for row, d in zip(kept["fresh"], fresh, strict=True)]
    kept["parameters"] = centres.double().cpu().numpy()
    return kept


def _padded(data: list[Tensor]) -> Tensor:
    """Data sets of different sizes as one tensor; the rows that fill up are not looked at."""
    longest = max(len(rows) for rows in data)
    return torch.stack([rows[torch.arange(longest) % max(1, len(rows))] for rows in data])


def _with_coordinates(found: Arrays, names: list[str], size: Size) -> Arrays:
    """Mean losses, and W of a cell's fine-tunes in coordinates of their own span.

    Distances between fine-tunes are kept exactly, and with them every information of W.
    """
    kept: Arrays = {}
    for name in names:
        one = [f"{name}/{replicate}" for replicate in range(size.replicates)]
        kept[f"{name}/coordinates"] = coordinates(
            np.stack([found[f"{key}/parameters"] for key in one])
        )
        for key in ("test", "test_without_noise", "training", "fresh"):
            kept[f"{name}/{key}"] = np.array(
                [np.mean(found[f"{each}/{key}"], dtype=np.float64) for each in one]
            )
        kept[f"{name}/test_rows"] = np.stack([found[f"{each}/test"] for each in one]).mean(
            0, dtype=np.float32
        )
    return kept


def coordinates(points: np.ndarray) -> np.ndarray:
    """Points (R, q) in an orthonormal basis of their span around their mean: (R, R)."""
    centred = points - points.mean(0)
    values, vectors = np.linalg.eigh(centred @ centred.T)
    return vectors * np.sqrt(values.clip(0))


def _of_anchors(
    work: Path,
    every: list[Cell],
    rows: Arrays,
    base: network.Weights,
    size: Size,
    seed: int,
    device: torch.device,
) -> None:
    """The same of W', trained on anchors alone, for every number of anchors; and of the base."""
    path = work / f"{size.outcomes}_anchors.npz"
    if path.exists():
        return
    chance = np.random.default_rng(seed)
    test = torch.from_numpy(rows["test"]).to(device)
    found: Arrays = {}
    replicates = max(size.anchor_replicates, size.replicates)
    for count in sorted({cell.anchors for cell in every}):
        orders = [chance.permutation(len(rows["anchor"])) for _ in range(replicates)]
        data = [rows["anchor"][order[:count]] for order in orders]
        fresh = [rows["anchor"][order[count : count + size.fresh]] for order in orders]
        measured: list[Arrays] = []
        for start in range(0, replicates, size.tune_models):
            part = slice(start, start + size.tune_models)
            measured.append(
                _measured(base, data[part], fresh[part], test, size, seed + start, device)
            )
        points = np.concatenate([one["parameters"] for one in measured])
        found[f"{count}/coordinates"] = coordinates(points)
        for key in ("test", "test_without_noise", "training", "fresh"):
            values = [np.mean(row, dtype=np.float64) for one in measured for row in one[key]]
            found[f"{count}/{key}"] = np.array(values)
    plain = network.start_of(base).unsqueeze(0)
    found["base"] = network.losses(base, plain, test, SMOOTHING, 64)[0].float().cpu().numpy()
    save(path, found)
    say("anchors alone")


def _of_supersample(
    work: Path, base: network.Weights, size: Size, seed: int, device: torch.device
) -> None:
    """Losses (k, n, 2) and masks (k, n) of fine-tunes on one of each of n pairs of rows."""
    path = work / "outcomes_supersample.npz"
    count, pairs = size.supersample
    if path.exists() or not count:
        return
    for file in sorted((work / "data").glob("*.npz")):
        made = load(file)
        if "centre/0/synthetic" in made:
            break
    else:
        raise ValueError(f"Expected the cell `centre` in {work / 'data'}; got none")
    rows = made["centre/0/synthetic"][: 2 * pairs].reshape(pairs, 2, -1)
    chance = np.random.default_rng(seed)
    masks = chance.integers(0, 2, (count, pairs))
    every, found = torch.from_numpy(rows.reshape(2 * pairs, -1)).to(device), []
    generator = torch.Generator().manual_seed(seed)
    for start in range(0, count, size.tune_models):
        part = masks[start : start + size.tune_models]
        data = [torch.from_numpy(rows[np.arange(pairs), mask]).to(device) for mask in part]
        centres = network.fine_tune(
            base,
            data,
            steps=size.tune_steps,
            batch=size.tune_batch,
            rate=size.tune_rate,
            generator=generator,
        )
        noise = size.noise * torch.randn(centres.shape, generator=generator).to(device)
        found.append(network.losses(base, centres + noise, every, SMOOTHING, 64).float().cpu())
    losses = torch.cat(found).reshape(count, pairs, 2).numpy()
    save(path, {"losses": losses, "masks": masks})
    say(f"supersample of {count} fine-tunes")
