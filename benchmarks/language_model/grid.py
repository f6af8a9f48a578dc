"""The cells of the study: one way of making synthetic data each, and the sizes of a run."""

from __future__ import annotations

import itertools
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from .network import Shape

PROMPTS = 32  # a data set is made with; its outputs are spread evenly over them
SMOOTHING = 0.01  # α of the loss: C = log(letters / α)


@dataclass(frozen=True)
class Cell:
    """Knobs of one way of making synthetic data.

    Attributes:
        name: of the cell, `line-KNOB-VALUE` or `random-NUMBER`.
        generator: `full`, or `less`: trained on a tenth of the steps.
        examples: k, anchors in a prompt.
        temperature: of sampling.
        rows: n, synthetic rows after curation.
        anchors: m, real rows that prompts are made of.
        filtered: share of the outputs that the filter drops, those with the lowest probability
            under the model to be post-trained.
        noise: share of the words of a row that are dropped or moved.
        noise_kind: `dropped` or `shuffled`.
        off_task: share of the prompts whose examples are of other subjects.
    """

    name: str
    generator: str = "full"
    examples: int = 2
    temperature: float = 0.8
    rows: int = 256
    anchors: int = 32
    filtered: float = 0.0
    noise: float = 0.0
    noise_kind: str = "dropped"
    off_task: float = 0.0

    @property
    def outputs(self) -> int:
        """Outputs before the filter, a multiple of the prompts."""
        return -(-round(self.rows / (1 - self.filtered)) // PROMPTS) * PROMPTS

    def knobs(self) -> dict[str, Any]:
        """Every knob by name."""
        return {key: value for key, value in asdict(self).items() if key != "name"}


LINES: dict[str, tuple[Any, ...]] = {
    "generator": ("full", "less"),
    "examples": (1, 2, 4),
    "temperature": (0.5, 0.8, 1.0, 1.3),
    "rows": (64, 128, 256, 512),
    "anchors": (8, 16, 32, 64),
    "filtered": (0.0, 0.25, 0.5),
    "noise": (0.0, 0.15, 0.3),
    "off_task": (0.0, 0.25, 0.5, 1.0),
}


@dataclass(frozen=True)
class Size:
    """How much is computed.

    Attributes:
        cells: in all, at least those of the lines.
        replicates: data sets and fine-tunes of every cell.
        generating, base: shapes of the generating model, and of the model to be post-trained.
        generating_steps, base_steps, text_batch: their training.
        tune_steps, tune_batch, tune_rate: fine-tuning.
        noise: τ of W.
        sample_batch, score_batch, tune_models: rows, rows and fine-tunes at a time.
        fresh: fresh rows of a data set's distribution.
        matrix: outputs of a cell whose log probability under every prompt is computed.
        supersample: fine-tunes and pairs of rows for the conditional mutual information; 0: none.
        anchor_replicates: fine-tunes on anchors alone, for every number of them.
        schedule: a key of `SCHEDULES`.
    """

    cells: int
    replicates: int
    generating: Shape
    base: Shape
    generating_steps: int
    base_steps: int
    text_batch: int
    tune_steps: int
    tune_batch: int = 32
    tune_rate: float = 5e-3
    noise: float = 0.01
    sample_batch: int = 4096
    score_batch: int = 4096
    tune_models: int = 128
    fresh: int = 48
    matrix: int = 64
    supersample: tuple[int, int] = (32, 64)
    anchor_replicates: int = 16
    schedule: str = "first"

    def scheduled(self, name: str) -> Size:
        """The same with another training of the fine-tunes; the supersample is of the first."""
        steps, rate = SCHEDULES[name]
        supersample = self.supersample if name == "first" else (0, 0)
        return replace(
            self,
            tune_steps=round(steps * self.tune_steps),
            tune_rate=rate * self.tune_rate,
            supersample=supersample,
            schedule=name,
        )

    @property
    def outcomes(self) -> str:
        """What files of outcomes begin with."""
        return "outcomes" if self.schedule == "first" else f"outcomes_{self.schedule}"


# Training of the fine-tunes: steps and rate, times those of the size.
SCHEDULES = {"first": (1.0, 1.0), "gentle": (1.0, 0.2)}

SIZES = {
    "quick": Size(
        cells=12,
        replicates=2,
        generating=Shape(2, 48, 5 * 65 + 1),
        base=Shape(2, 48, 66),
        generating_steps=60,
        base_steps=80,
        text_batch=8,
        tune_steps=5,
        tune_batch=8,
        sample_batch=256,
        score_batch=512,
        tune_models=4,
        fresh=16,
        matrix=32,
        supersample=(30, 16),
        anchor_replicates=4,
    ),
    "small": Size(
        cells=40,
        replicates=2,
        generating=Shape(2, 48, 5 * 65 + 1),
        base=Shape(2, 48, 66),
        generating_steps=250,
        base_steps=300,
        text_batch=8,
        tune_steps=24,
        tune_batch=16,
        sample_batch=512,
        score_batch=1024,
        tune_models=4,
        fresh=32,
        matrix=32,
        supersample=(0, 0),
        anchor_replicates=2,
    ),
    "cpu": Size(
        cells=220,
        replicates=2,
        generating=Shape(3, 96, 5 * 65 + 1),
        base=Shape(2, 96, 66),
        generating_steps=1200,
        base_steps=1500,
        text_batch=16,
        tune_steps=40,
        sample_batch=512,
        score_batch=1024,
        tune_models=8,
        matrix=32,
        anchor_replicates=4,
    ),
    "gpu": Size(
        cells=240,
        replicates=8,
        generating=Shape(4, 192, 5 * 65 + 1),
        base=Shape(3, 128, 66),
        generating_steps=2000,
        base_steps=1500,
        text_batch=64,
        tune_steps=120,
    ),
}


def cells(count: int, seed: int) -> list[Cell]:
    """The lines through the centre, one knob at a time, and random cells around them."""
    centre = Cell("centre")
    found = [centre]
    for knob, values in LINES.items():
        for value in values:
            if value != getattr(centre, knob):
                found.append(replace(centre, name=f"line-{knob}-{value}", **{knob: value}))
    shuffled = replace(centre, noise=0.3, noise_kind="shuffled", name="line-noise_kind-shuffled")
    found.append(shuffled)
    chance = np.random.default_rng(seed)
    known = {tuple(one.knobs().items()) for one in found}
    for number in itertools.count():
        if len(found) >= count:
            return found[: max(count, 1)]
        drawn = {knob: values[chance.integers(len(values))] for knob, values in LINES.items()}
        # Most of curation and of other subjects' prompts are absent where people make data.
        for knob in ("filtered", "noise", "off_task", "generator"):
            if chance.random() < 0.4:
                drawn[knob] = LINES[knob][0]
        kind = ("dropped", "shuffled")[chance.integers(2)] if drawn["noise"] else "dropped"
        one = Cell(f"random-{number:03}", **drawn, noise_kind=kind)
        if tuple(one.knobs().items()) not in known:
            known.add(tuple(one.knobs().items()))
            found.append(one)
    raise AssertionError
