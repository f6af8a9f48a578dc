"""Stage `data`: networks, prompts, outputs, curation, and the exact log-probabilities of outputs.

Torch and NumPy alone. What is done is kept in the work folder, a file a step, and not done again.
"""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from . import network, text, written
from .grid import PROMPTS, Cell, Size

Arrays = dict[str, np.ndarray]
_ROWS_OF_CONTEXT = 5
# The task has the fewest rows: the generating model reads them more often.
_PASSES = {"seen": 8, "off_task": 4, "general": 2}


def say(message: str) -> None:
    """Progress."""
    print(f"{time.strftime('%H:%M:%S')} {message}", flush=True)


def save(path: Path, arrays: dict[str, Any]) -> None:
    """Whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"part-{path.name}")
    np.savez_compressed(part, **arrays)
    part.replace(path)


def load(path: Path) -> Arrays:
    """Arrays of a file that `save` wrote."""
    with np.load(path, allow_pickle=False) as found:
        return dict(found)


def corpus(work: Path, data: Sequence[Path], seed: int) -> Arrays:
    """Rows of real text, read once."""
    path = work / "corpus.npz"
    if not path.exists():
        save(path, text.corpus(data, seed))
    rows = load(path)
    say("rows: " + ", ".join(f"{k} {len(v)}" for k, v in rows.items() if v.ndim == 2))
    return rows


def networks(
    work: Path,
    rows: Arrays,
    size: Size,
    seed: int,
    device: torch.device,
    wanted: Sequence[str],
) -> dict[str, network.Weights]:
    """Generating models `full` and `less`, and the model to be post-trained `base`."""
    together = _together(rows, seed)
    single = rows["general"]
    single = np.concatenate([np.full((len(single), 1), text.SEPARATOR, np.uint8), single], 1)
    plans = {
        "full": (size.generating, together, size.generating_steps, 0.1),
        "less": (size.generating, together, size.generating_steps // 10, 0.1),
        "base": (size.base, single, size.base_steps, 0.1),
    }
    found = {}
    for name in wanted:
        shape, texts, steps, dropout = plans[name]
        path = work / f"network_{name}.npz"
        if not path.exists():
            generator = torch.Generator().manual_seed(seed)
            batch = size.text_batch * (1 if name != "base" else 4)
            trained = network.train(
                network.new_network(shape, generator, device),
                torch.from_numpy(texts).to(device),
                steps=steps,
                batch=batch,
                rate=2e-3,
                dropout=dropout,
                generator=generator,
            )
            save(path, {key: value.cpu().numpy() for key, value in trained.items()})
            say(
                f"trained {name}: {sum(v.numel() for v in trained.values())} weights, {steps} steps"
            )
        weights = {key: torch.from_numpy(value) for key, value in load(path).items()}
        found[name] = {key: value.to(device) for key, value in weights.items()}
    return found


def _together(rows: Arrays, seed: int) -> np.ndarray:
    """Texts of five rows of one module, the separator before each: what prompts look like."""
    chance = np.random.default_rng(seed)
    texts = []
    for part in ("seen", "off_task", "general"):
        for module in np.unique(rows[f"{part}_module"]):
            own = rows[part][rows[f"{part}_module"] == module]
            if len(own) < _ROWS_OF_CONTEXT:
                continue
            for _ in range(_PASSES[part]):
                order = chance.permutation(len(own))
                whole = order[: len(order) // _ROWS_OF_CONTEXT * _ROWS_OF_CONTEXT]
                texts.append(own[whole.reshape(-1, _ROWS_OF_CONTEXT)])
    joined = np.concatenate(texts)
    marks = np.full((*joined.shape[:2], 1), text.SEPARATOR, np.uint8)
    return np.concatenate([marks, joined], -1).reshape(len(joined), -1)


def generate(
    work: Path,
    every: list[Cell],
    rows: Arrays,
    models: dict[str, network.Weights],
    size: Size,
    seed: int,
    device: torch.device,
) -> None:
    """Data sets of every cell, by the distribution that they are drawn from."""
    groups: dict[tuple[str, int, float], list[Cell]] = defaultdict(list)
    for cell in every:
        groups[cell.generator, cell.examples, cell.temperature].append(cell)
    axes = _axes(models["base"], rows, size, device)
    for number, ((name, examples, temperature), members) in enumerate(sorted(groups.items())):
        path = work / "data" / f"{name}_{examples}_{temperature}.npz"
        if path.exists():
            continue
        started = time.perf_counter()
        maker = Maker(
            network,
            models[name],
            models["base"],
            temperature,
            size,
            device,
            seed + 1000 * number,
            axes,
        )
        found: dict[str, Any] = {"cells": json.dumps([cell.name for cell in members])}
        jobs = [(cell, one) for cell in members for one in range(size.replicates)]
        for cell, made in maker.data_sets(jobs, rows):
            found |= {f"{cell}/{key}": value for key, value in made.items()}
        save(path, found)
        made_rows = sum(cell.outputs * size.replicates for cell in members)
        say(f"{path.stem}: {made_rows} outputs in {time.perf_counter() - started:.1f} s")
    path = work / "real.npz"
    if not path.exists():
        found = {}
        for part in ("anchor", "target", "test"):
            on_device = torch.from_numpy(rows[part]).to(device)
            states = network.embedding(models["base"], on_device, size.score_batch)
            found[f"{part}_embedding"] = (states @ axes).half().cpu().numpy()
            alone = on_device.new_full((len(on_device), 1), text.SEPARATOR)
            for name, weights in models.items():
                density = written.log_prob(
                    network, weights, alone, on_device, 1.0, size.score_batch
                )
                found[f"{part}_log_prob_{name}"] = density.float().cpu().numpy()
        save(path, found)


def _tensor(rows: np.ndarray) -> Tensor:
    """Tokens on the CPU; of uint16, which torch hardly knows, as int32."""
    return torch.from_numpy(rows.astype(np.int32) if rows.dtype == np.uint16 else rows)


def _axes(base: network.Weights, rows: Arrays, size: Size, device: torch.device) -> Tensor:
    """Principal axes of the real rows' embeddings, scaled to unit variance: (width, 16)."""
    real = np.concatenate([rows["target"], rows["anchor"], rows["off_task"][:500]])
    states = network.embedding(base, torch.from_numpy(real).to(device), size.score_batch)
    _, values, axes = torch.linalg.svd((states - states.mean(0)).double(), full_matrices=False)
    return (axes[:16].T / (values[:16] / len(states) ** 0.5)).float()


class Maker:
    """Prompts, outputs and curation under one generating model, at one temperature.

    `kit` is what `written` says, and has `prompt_of`, `alone`, `embedding` and `damaged` for rows
    of its tokens.
    """

    def __init__(
        self,
        kit: Any,
        weights: Any,
        base: Any,
        temperature: float,
        size: Size,
        device: torch.device,
        seed: int,
        axes: Tensor,
    ) -> None:
        self.kit = kit
        self.weights, self.base, self.temperature = weights, base, temperature
        self.size, self.device, self.axes = size, device, axes
        self.generator = torch.Generator(device).manual_seed(seed)
        self.chance = np.random.default_rng(seed)

    def data_sets(self, jobs: list[tuple[Cell, int]], rows: Arrays):
        """(cell/replicate, arrays) of every job; the outputs of all are drawn together."""
        drawn = [self.prompts(cell, rows) for cell, _ in jobs]
        more = [2 if cell.filtered else 1 for cell, _ in jobs]
        fresh = -(-self.size.fresh // PROMPTS) * PROMPTS
        each = [
            (cell.outputs + fresh * times) // PROMPTS
            for (cell, _), times in zip(jobs, more, strict=True)
        ]
        prompts = np.concatenate(
            [np.repeat(own, count, 0) for (own, _), count in zip(drawn, each, strict=True)]
        )
        texts = _tensor(prompts).to(self.device)
        made, density = self.draw(texts)
        judged = self.judge(made)
        outputs, densities, judgements = (value.cpu().numpy() for value in (made, density, judged))
        start = 0
        for (cell, replicate), (own, anchors), count in zip(jobs, drawn, each, strict=True):
            stop = start + PROMPTS * count
            index = np.repeat(np.arange(PROMPTS), count)
            within = np.tile(np.arange(count), PROMPTS)
            first = within < cell.outputs // PROMPTS
            part = slice(start, stop)
            start = stop
            found = self.curate(
                cell, outputs[part], densities[part], judgements[part], index, first
            )
            found["anchors"] = anchors.astype(np.int32)
            if replicate == 0:
                found |= self.measure(own, outputs[part][first], index[first], found)
            yield f"{cell.name}/{replicate}", found

    def prompts(self, cell: Cell, rows: Arrays) -> tuple[np.ndarray, np.ndarray]:
        """Prompts (32, P), and the numbers of the anchors that they are made of.

        The first prompts have examples of the task, the others of one other subject each.
        """
        anchors = self.chance.choice(len(rows["anchor"]), cell.anchors, replace=False)
        foreign = round(cell.off_task * PROMPTS)
        found = []
        for prompt in range(PROMPTS):
            if prompt < PROMPTS - foreign:
                chosen = self.chance.choice(anchors, cell.examples, replace=False)
                shown = rows["anchor"][chosen]
            else:
                module = self.chance.choice(rows["off_task_module"])
                own = rows["off_task"][rows["off_task_module"] == module]
                shown = own[self.chance.choice(len(own), cell.examples, replace=False)]
            found.append(self.kit.prompt_of(shown))
        return np.stack(found), anchors

    def curate(
        self,
        cell: Cell,
        outputs: np.ndarray,
        density: np.ndarray,
        judged: np.ndarray,
        index: np.ndarray,
        first: np.ndarray,
    ) -> Arrays:
        """Filter and noise; rows that are not `first` become fresh rows of one distribution."""
        order = np.argsort(-judged[first], kind="stable")[: cell.rows]
        if not cell.filtered:  # more outputs than rows only by rounding up to whole prompts
            order = np.sort(self.chance.permutation(first.sum())[: cell.rows])
        level = judged[first][order].min() if cell.filtered else -np.inf
        fresh = np.flatnonzero(~first & (judged >= level))
        fresh = self.chance.permutation(fresh)[: self.size.fresh]
        kept = np.flatnonzero(first)[order]
        noise = (cell.noise, cell.noise_kind, self.chance)
        return {
            "synthetic": self.kit.damaged(outputs[kept], *noise),
            "fresh": self.kit.damaged(outputs[fresh], *noise),
            "prompt": index[kept].astype(np.uint8),
            "own_log_prob": density[kept].astype(np.float32),
            "output_log_prob": density[first].astype(np.float32),
        }

    def measure(
        self, prompts: np.ndarray, outputs: np.ndarray, index: np.ndarray, found: Arrays
    ) -> Arrays:
        """Log-probabilities of outputs and of unprompted rows under all prompts, and embeddings."""
        texts = _tensor(prompts).to(self.device)
        chosen = np.concatenate(
            [
                np.flatnonzero(index == prompt)[: self.size.matrix // PROMPTS]
                for prompt in range(PROMPTS)
            ]
        )
        made = _tensor(outputs[chosen]).to(self.device)
        alone = self.kit.alone(len(made), self.device)
        free, of_free = self.draw(alone)
        batch, distribution = self.size.score_batch, (self.kit, self.weights)
        of_made = written.log_prob(*distribution, alone, made, self.temperature, batch)
        arrays = {"matrix_prompt": index[chosen].astype(np.uint8)}
        for name, rows, unprompted in (("output", made, of_made), ("unprompted", free, of_free)):
            pairs = written.pairs(*distribution, texts, rows, self.temperature, batch)
            arrays[f"{name}_matrix"] = pairs.float().cpu().numpy()
            arrays[f"{name}_unprompted"] = unprompted.float().cpu().numpy()
        synthetic = _tensor(found["synthetic"]).to(self.device)
        for name, rows in (("embedding", synthetic), ("unprompted_embedding", free)):
            states = self.kit.embedding(self.base, rows, batch) @ self.axes
            arrays[name] = states.half().cpu().numpy()
        return arrays | {"base_log_prob": self.judge(synthetic).float().cpu().numpy()}

    def draw(self, prompts: Tensor) -> tuple[Tensor, Tensor]:
        """A row after each prompt, and its log-probability."""
        batch = self.size.sample_batch
        distribution = (self.kit, self.weights, prompts, self.temperature)
        return written.sample(*distribution, self.generator, batch)

    def judge(self, rows: Tensor) -> Tensor:
        """Log-probability of rows under the model to be post-trained."""
        alone = self.kit.alone(len(rows), self.device)
        return written.log_prob(self.kit, self.base, alone, rows, 1.0, self.size.score_batch)
