"""Exact terms, risks and bounds of chains of normals and letters: what coverage.py compares with.

A chain of normals has log-determinants, a chain of letters finite sums. Losses are 1 − exp(−|row −
W|² / 2 d) of a mean plus noise, and that of a wrong letter. Total variations and the mean absolute
gap of normals have no closed form: they are averages of 25,000 rows or more and 10,000 data sets.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from examples import finite_chain as chains
from models.linear_gaussian import loadings
from rbpp.theory.finite_learner import finite_learner
from rbpp.theory.lemmas import LemmaSetting
from rbpp.theory.model_factor import Kind
from rbpp.theory.statements import STATEMENTS
from rbpp.theory.terms import Terms, add_derived

LEARNER_NOISE = 0.3
LETTER_NOISE = 0.2
RESOLUTION = 0.01
LOSS_BOUND, SUB_GAUSSIAN = 1.0, 0.5
# Of total variations: errors of 0.001 where the estimate is as good, and of 0.002.
TASK_ROWS, PROMPT_ROWS = 100_000, 25_000
TRUTH_SETS = 10_000  # of the mean absolute gap
World = Mapping[str, Tensor]
Knobs = Mapping[str, float]


def location_loss(parameters: Tensor, rows: Tensor) -> Tensor:
    """1 − exp(−|row − W|² / 2 d) of W (…, d) on rows (…, n, d): (…, n)."""
    distance = (rows - parameters.unsqueeze(-2)).square().sum(-1)
    return -torch.expm1(-distance / (2 * rows.shape[-1]))


@dataclass(frozen=True, kw_only=True)
class NormalChain:
    """A chain whose sites are linear maps of one vector of standard normals.

    Attributes:
        sites: anchor, prompt, model_factor, output, synthetic: (rows · d, noises).
        own: which noises a row of S_gen has for itself, given what is above the output.
        anchors, outputs: rows.
        task, generator: mean (d,) and covariance (d, d) of D and D_M; without a generator there
            are no divergences.
        anchor_mean, synthetic_mean: of a row.
        factor: where the process has the model factor.
        volume: site to E log |det ∂ site / ∂ normal|, where sites are maps of the normal ones.
    """

    sites: dict[str, Tensor]
    own: Tensor
    anchors: int
    outputs: int
    task: tuple[Tensor, Tensor]
    generator: tuple[Tensor, Tensor] | None
    synthetic_mean: Tensor
    factor: Kind = "below"
    volume: dict[str, float] = field(default_factory=dict)


def linear_gaussian_truth(world: World, knobs: Knobs) -> dict[str, float]:
    """Every term and bound of one world of `linear_gaussian`."""
    anchors, outputs = int(knobs["anchors"]), int(knobs["outputs"])
    sizes = {"anchors": anchors, "outputs": outputs}
    noises = {name: knobs[name] for name in ("prompt_noise", "curation_noise")}
    site = {name: value.double() for name, value in loadings(world, **sizes, **noises).items()}
    task_map, generator_map, answer_map, prompt_map = (
        world[name].double() for name in ("task_map", "generator_map", "answer_map", "prompt_map")
    )
    task_mean, generator_mean = world["task_mean"].double(), world["generator_mean"].double()
    above = 2 * anchors * len(task_mean)  # noises of anchors and prompts come first
    return normal_truth(
        NormalChain(
            sites=site,
            own=torch.arange(site["synthetic"].shape[1]) >= above,
            anchors=anchors,
            outputs=outputs,
            task=(task_mean, task_map @ task_map.mT),
            generator=(generator_mean, generator_map @ generator_map.mT),
            synthetic_mean=generator_mean + answer_map @ prompt_map @ task_mean,
        )
    )


def normal_truth(chain: NormalChain) -> dict[str, float]:
    """Every term and bound; W and W' are noisy means of rows."""
    dimension = len(chain.synthetic_mean)
    columns = chain.sites["synthetic"].shape[1]
    wide = {
        name: torch.cat([value, value.new_zeros(len(value), 2 * dimension)], 1)
        for name, value in chain.sites.items()
    }
    for place, (name, of) in enumerate((("learner", "synthetic"), ("anchor_learner", "anchor"))):
        mean = wide[of].unflatten(0, (-1, dimension)).mean(0)
        start = columns + place * dimension
        mean[:, start : start + dimension] = LEARNER_NOISE * torch.eye(dimension).double()
        wide[name] = mean
    term = {**_normal_informations(chain, wide), **_normal_divergences(chain)}
    term |= _normal_risks(chain, wide)
    rows = {"anchor": chain.anchors, "synthetic": chain.outputs}
    return with_bounds(term, rows, width=dimension)


def _normal_informations(chain: NormalChain, wide: dict[str, Tensor]) -> dict[str, float]:
    def log_det(*names: str) -> float:
        stacked = torch.cat([wide[name] for name in names])
        return float(torch.logdet(stacked @ stacked.mT))

    def entropy(name: str) -> float:
        size = len(wide[name])
        constant = size * math.log(2 * math.pi * math.e) / 2 - size * math.log(RESOLUTION)
        return constant + log_det(name) / 2 + chain.volume.get(name, 0.0)

    def information(first: str, *second: str) -> float:
        return 0.5 * (log_det(first) + log_det(*second) - log_det(first, *second))

    prompt_output, prompt = information("prompt", "output"), information("learner", "prompt")
    synthetic, output = information("synthetic", "learner"), information("output", "learner")
    gain = entropy("output") - prompt_output
    of_factor, factor = gain, output - prompt
    given_prompt = factor
    if chain.factor != "absent":
        of_factor, factor = entropy("model_factor"), information("learner", "model_factor")
        given_prompt = information("learner", "prompt", "model_factor") - prompt
    return {
        "entropy_anchor": entropy("anchor"),
        "entropy_prompt_factor": entropy("prompt"),
        "entropy_model_factor": of_factor,
        "information_gain": gain,
        "information_prompt_output": prompt_output,
        "information_anchor_output": information("anchor", "output"),
        "entropy_output": entropy("output"),
        "entropy_synthetic": entropy("synthetic"),
        "information_synthetic_learner": synthetic,
        "information_output_learner": output,
        "curation_leak": synthetic - output,
        "information_prompt_learner": prompt,
        "information_model_factor_learner": factor,
        "information_model_factor_learner_given_prompt": given_prompt,
        "information_anchor_synthetic_learner": information("anchor", "learner"),
        "information_anchor_learner": information("anchor", "anchor_learner"),
    }


def _row(chain: NormalChain) -> tuple[Tensor, Tensor]:
    """What a row of S_gen shares with others, and covariance of what it has for itself."""
    row = chain.sites["synthetic"][: len(chain.synthetic_mean)]
    return row * ~chain.own, (row * chain.own) @ (row * chain.own).mT


def _normal_divergences(chain: NormalChain) -> dict[str, float]:
    """TV(D, D_M), TV(D_M, D_gen) and TV(D, D_gen), the last two averaged over what is above."""
    if chain.generator is None:
        return {}
    shared, curated = _row(chain)
    answers = chain.synthetic_mean + _rows(shared @ shared.mT, PROMPT_ROWS, 0)
    synthetic = (answers, curated)
    return {
        "task_divergence": _variation(chain.task, chain.generator, TASK_ROWS, 1),
        "generation_divergence": _variation(chain.generator, synthetic, PROMPT_ROWS, 3),
        "total_divergence": _variation(chain.task, synthetic, PROMPT_ROWS, 5),
    }


def _variation(
    first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor], count: int, key: int
) -> float:
    """TV of normals, mean (d,) or one for every point, from points of both."""
    pair = (first, second)
    normals = [
        torch.distributions.MultivariateNormal(torch.zeros(len(spread)).double(), spread)
        for _, spread in pair
    ]
    sides = []
    for place, (centre, spread) in enumerate(pair):
        points = centre + _rows(spread, count, key + place)
        logs = [
            normal.log_prob(points - mean) for normal, (mean, _) in zip(normals, pair, strict=True)
        ]
        sides.append(float(((logs[0] - logs[1]) / 2).tanh().abs().mean()))
    return sum(sides) / 2


def _rows(covariance: Tensor, count: int, key: int) -> Tensor:
    return _normals(count, len(covariance), key) @ torch.linalg.cholesky(covariance).mT


@functools.lru_cache(maxsize=16)
def _normals(count: int, size: int, key: int) -> Tensor:
    source = torch.Generator().manual_seed(key)
    return torch.randn(count, size, generator=source, dtype=torch.float64)


def _normal_risks(chain: NormalChain, wide: dict[str, Tensor]) -> dict[str, float]:
    """Expected differences of risks, and E |R − R̂| by 10,000 data sets."""
    dimension = len(chain.synthetic_mean)
    zero = torch.zeros(dimension).double()
    learner, row = wide["learner"], wide["synthetic"][:dimension]
    own = torch.cat([chain.own, chain.own.new_ones(2 * dimension)])
    sample = _loss(zero, _square(row - learner))
    fresh = _square((row - learner) * ~own) + _square(row * own) + _square(learner * own)
    task_mean, task = chain.task
    on_task = _loss(task_mean - chain.synthetic_mean, task + _square(learner))
    anchor_learner, anchor = wide["anchor_learner"], wide["anchor"][:dimension]
    of_anchors = _loss(zero, task + _square(anchor_learner))
    anchor_gap = float(of_anchors - _loss(zero, _square(anchor - anchor_learner)))
    return {
        "generalization_error": float(on_task - sample),
        "estimation_gap": float(_loss(zero, fresh) - sample),
        "absolute_estimation_gap": _absolute_gap(chain),
        "generalization_error_anchor": anchor_gap,
        "estimation_gap_anchor": anchor_gap,
    }


def _absolute_gap(chain: NormalChain) -> float:
    """Given what is above the output, rows and W differ from their mean by their own noise."""
    _, covariance = _row(chain)
    size = len(covariance)
    normals = _normals(TRUTH_SETS, (chain.outputs + 1) * size, 7)
    rows = normals[:, size:].unflatten(1, (chain.outputs, size))
    rows = rows @ torch.linalg.cholesky(covariance).mT
    learner = rows.mean(1) + LEARNER_NOISE * normals[:, :size]
    gaps = _loss(learner, covariance) - location_loss(learner, rows).mean(-1)
    return float(gaps.abs().mean())


def _loss(mean: Tensor, covariance: Tensor) -> Tensor:
    """E location_loss where row − W ~ N(mean (…, d), covariance)."""
    size = covariance.shape[-1]
    widened = covariance + size * torch.eye(size).double()
    factor = torch.linalg.cholesky(widened)
    white = torch.linalg.solve_triangular(factor, mean.unsqueeze(-1), upper=False)
    log_det = 2 * factor.diagonal().log().sum() - size * math.log(size)
    return -torch.expm1(-0.5 * (log_det + white.square().sum((-1, -2))))


def _square(matrix: Tensor) -> Tensor:
    return matrix @ matrix.mT


def with_bounds(
    term: Mapping[str, float], rows: Mapping[str, int], *, width: int = 1
) -> dict[str, float]:
    """The terms, what follows from them, and every bound, of rows of `width` numbers or letters."""
    found = Terms({name: torch.tensor(value).double() for name, value in term.items()})
    setting = LemmaSetting(
        rows=rows,
        coordinates={name: width * count for name, count in rows.items()},
        resolution=RESOLUTION,
        loss_bound=LOSS_BOUND,
        sub_gaussian=SUB_GAUSSIAN,
    )
    add_derived(found, setting)
    for right, statement in STATEMENTS.items():
        found[right] = statement.formula(found, setting)
    return {name: float(value) for name, value in found.items() if not bool(value.isnan())}


def finite_truth(world: World, knobs: Knobs) -> dict[str, float]:
    """Every term and bound of one world of `finite_alphabet`."""
    letters, anchors, outputs = (int(knobs[k]) for k in ("letters", "anchors", "outputs"))
    of_anchors, of_outputs = data_sets(letters, anchors), data_sets(letters, outputs)
    prompts = world["ranks"].argsort(-1)[of_anchors]
    answers = world["answers"].long()[prompts].sum(-1) % letters
    shifted = index_of((answers[:, None, None] + of_outputs) % letters, letters)
    noise = knobs["curation_noise"]
    curation = noise * world["replacement"]
    curation[0] = curation[0] + 1 - noise
    shift = (of_outputs[None] - of_outputs[:, None]) % letters  # from o to s
    own = index_of(prompts, letters)
    # The prompt's own alphabet: data set j of letters is the prompt that reads so.
    by_prompt = torch.empty_like(shifted)
    by_prompt[own] = shifted
    chain = chains.FiniteChain(
        product(world["task"], of_anchors),
        torch.eye(len(of_anchors), dtype=torch.float64)[own],
        product(world["generator"], of_outputs),
        torch.eye(len(of_outputs), dtype=torch.float64)[by_prompt],
        product(curation, shift),
        most_frequent(of_outputs, letters),
        most_frequent(of_anchors, letters),
    )
    return letters_truth(chain, of_anchors, of_outputs, world["task"], world["generator"])


def data_sets(letters: int, rows: int) -> Tensor:
    """Every data set of so many letters: (letters ** rows, rows)."""
    return torch.cartesian_prod(*[torch.arange(letters)] * rows).reshape(-1, rows)


def index_of(sets: Tensor, letters: int) -> Tensor:
    """The place of data sets (…, rows) in `data_sets`."""
    return (sets * letters ** torch.arange(sets.shape[-1] - 1, -1, -1)).sum(-1)


def product(table: Tensor, sets: Tensor) -> Tensor:
    """The probability of data sets (…, rows) of independent letters."""
    return table[..., sets].prod(-1)


def most_frequent(sets: Tensor, letters: int) -> Tensor:
    """The table of the finite learner: (sets, letters)."""
    prepared = finite_learner(letters, LETTER_NOISE).prepare(sets[None, :, :1], torch.Generator())
    return prepared.fit(sets[None, :, :, None]).probabilities[0]


def letters_truth(
    chain: chains.FiniteChain,
    of_anchors: Tensor,
    of_outputs: Tensor,
    task: Tensor,
    generator: Tensor,
    factor: Kind = "below",
) -> dict[str, float]:
    """Every term and bound by enumeration of all data sets, divergences and risks included."""
    found = {name: float(value) for name, value in chains.terms(chain).items()}
    if factor == "absent":  # what the prompt leaves open stands for e_M
        rest = found["information_output_learner"] - found["information_prompt_learner"]
        found["entropy_model_factor"] = found["information_gain"]
        found["information_model_factor_learner"] = rest
        found["information_model_factor_learner_given_prompt"] = rest
    found |= _finite_risks(chain, of_outputs, task, generator, factor)
    on_anchors = chain.joint("av")
    gap = float((on_anchors * _wrong(of_anchors, len(task))).sum())
    gap = float((on_anchors.sum(0) * (1 - task)).sum()) - gap
    found |= {"generalization_error_anchor": gap, "estimation_gap_anchor": gap}
    return with_bounds(found, {"anchor": of_anchors.shape[1], "synthetic": of_outputs.shape[1]})


def _finite_risks(
    chain: chains.FiniteChain, sets: Tensor, task: Tensor, generator: Tensor, factor: Kind
) -> dict[str, float]:
    joint = chain.joint("pesw")
    joint = joint.flatten(0, 1) if factor == "above" else joint.sum(1)  # (above, sets, W)
    above = joint.sum((1, 2))
    given = joint.sum(2) / above[:, None].clamp_min(1e-300)
    shares = torch.nn.functional.one_hot(sets, len(task)).double().mean(1)  # of a row at random
    rows = given @ shares

    def variation(first: Tensor, second: Tensor) -> Tensor:
        return 0.5 * (first - second).abs().sum(-1)

    wrong = _wrong(sets, len(task))
    gaps = (1 - rows)[:, None] - wrong  # R_{D_gen}(W) − R̂_S(W)
    on_task = float((joint.sum((0, 1)) * (1 - task)).sum())
    return {
        "task_divergence": float(variation(task, generator)),
        "generation_divergence": float((above * variation(generator, rows)).sum()),
        "total_divergence": float((above * variation(task, rows)).sum()),
        "generalization_error": on_task - float((joint.sum(0) * wrong).sum()),
        "estimation_gap": float((joint * gaps).sum()),
        "absolute_estimation_gap": float((joint * gaps.abs()).sum()),
    }


def _wrong(sets: Tensor, letters: int) -> Tensor:
    """Share of a data set's rows that are not the letter W: (sets, W)."""
    return (sets[:, :, None] != torch.arange(letters)).double().mean(1)
