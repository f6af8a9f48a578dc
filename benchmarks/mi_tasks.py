"""Paired rows of known mutual information, re-created from the field's own definitions.

`standard` has the tasks of the papers with their own parameters. `varied` has other dimensions,
strengths and counts of the same families; two constants were set with them in view. `held_out` has
others again, on which nothing was chosen. Transforms of X alone and of
Y alone leave the information as it is, so most values are in closed form; those of mixtures are
Monte Carlo means with their standard error.

Czyż, Grabowski, Vogt, Beerenwinkel and Marx, Beyond normal: on the evaluation of mutual information
estimators, NeurIPS 2023 (arXiv 2306.11078). The same authors, On the properties and estimation of
pointwise mutual information profiles, TMLR 2025 (arXiv 2310.10240): the mixtures.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from scipy.optimize import brentq
from scipy.special import digamma, gammaln, logsumexp, ndtr

Sampler = Callable[[int, np.random.Generator], np.ndarray]
Transform = Callable[[np.ndarray], np.ndarray]
TRUTH_DRAWS = 400_000


def unchanged(rows: np.ndarray) -> np.ndarray:
    return rows


@dataclass(frozen=True)
class Task:
    """A distribution of paired rows.

    Attributes:
        name: of the task.
        dim_x, dim_y: dimensions of X and Y before the transforms.
        joint: draws rows (n, dim_x + dim_y).
        information: I(X; Y) in nats, or a function that gives it with its standard error.
        mixture: whether the joint distribution is a Gaussian mixture as it is observed.
        transform_x, transform_y: one-to-one maps of the rows of X and of Y.
    """

    name: str
    dim_x: int
    dim_y: int
    joint: Sampler
    information: float | Callable[[], tuple[float, float]]
    mixture: bool = False
    transform_x: Transform = staticmethod(lambda rows: rows)  # noqa: RUF009
    transform_y: Transform = staticmethod(lambda rows: rows)  # noqa: RUF009

    def sample(self, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Rows of X and of Y."""
        rows = self.joint(count, np.random.default_rng([seed, 7919]))
        return self.transform_x(rows[:, : self.dim_x]), self.transform_y(rows[:, self.dim_x :])

    @cached_property
    def truth(self) -> tuple[float, float]:
        """I(X; Y) and the standard error of its computation, zero for a closed form."""
        return self.information() if callable(self.information) else (self.information, 0.0)


def transformed(
    task: Task, name: str, transform_x: Transform, transform_y: Transform | None = None
) -> Task:
    """The task with X and Y (or X alone) mapped, after the maps that it has."""
    before_x, before_y = task.transform_x, task.transform_y
    return replace(
        task,
        name=f"{name} {task.name}",
        mixture=False,
        transform_x=lambda rows: transform_x(before_x(rows)),
        transform_y=lambda rows: (transform_y or unchanged)(before_y(rows)),
    )


def normal_information(covariance: np.ndarray, dim_x: int) -> float:
    """½ log |Σ_x| |Σ_y| / |Σ|."""
    blocks = covariance[:dim_x, :dim_x], covariance[dim_x:, dim_x:], covariance
    x, y, both = (np.linalg.slogdet(block)[1] for block in blocks)
    return float(0.5 * (x + y - both))


def normal(name: str, covariance: np.ndarray, dim_x: int) -> Task:
    factor = np.linalg.cholesky(covariance)
    return Task(
        name,
        dim_x,
        len(covariance) - dim_x,
        lambda count, source: source.standard_normal((count, len(covariance))) @ factor.T,
        normal_information(covariance, dim_x),
        mixture=True,
    )


def bivariate_normal(correlation: float = 0.75) -> Task:
    return normal(
        f"normal 1×1, ρ {correlation:g}", np.array([[1, correlation], [correlation, 1]]), 1
    )


def dense_normal(dim: int, correlation: float = 0.5) -> Task:
    """Every pair of the 2 dim coordinates has this correlation."""
    covariance = np.full((2 * dim, 2 * dim), correlation) + (1 - correlation) * np.eye(2 * dim)
    return normal(f"dense normal {dim}×{dim}, ρ {correlation:g}", covariance, dim)


def pair_correlations(dim_x: int, dim_y: int, pairs: int, strength: float) -> np.ndarray:
    """X_i = λ Z_i + noise and Y_i = λ Z_i + noise' for the first pairs, the rest independent."""
    covariance = np.eye(dim_x + dim_y)
    correlation = strength**2 / (1 + strength**2)
    for index in range(pairs):
        covariance[index, dim_x + index] = covariance[dim_x + index, index] = correlation
    return covariance


def paired_normal(dim: int, pairs: int = 2, strength: float = 2.0) -> Task:
    covariance = pair_correlations(dim, dim, pairs, strength)
    return normal(f"{pairs}-pair normal {dim}×{dim}, λ {strength:g}", covariance, dim)


def student_entropy(dim: int, freedom: float) -> float:
    """Differential entropy of the standard multivariate t, nats."""
    half = (freedom + dim) / 2
    return float(
        gammaln(freedom / 2)
        - gammaln(half)
        + dim / 2 * np.log(freedom * np.pi)
        + half * (digamma(half) - digamma(freedom / 2))
    )


def student(dim_x: int, dim_y: int, freedom: float, correlation: float = 0.0) -> Task:
    """Multivariate t: even uncorrelated coordinates depend on each other through their scale."""
    dim = dim_x + dim_y
    dispersion = np.full((dim, dim), correlation) + (1 - correlation) * np.eye(dim)
    factor = np.linalg.cholesky(dispersion)

    def joint(count: int, generator: np.random.Generator) -> np.ndarray:
        scale = np.sqrt(freedom / generator.chisquare(freedom, (count, 1)))
        return scale * (generator.standard_normal((count, dim)) @ factor.T)

    correction = sum(
        sign * student_entropy(size, freedom) for sign, size in ((1, dim_x), (1, dim_y), (-1, dim))
    )
    shown = f", ρ {correlation:g}" if correlation else ""
    return Task(
        f"Student {dim_x}×{dim_y}, ν {freedom:g}{shown}",
        dim_x,
        dim_y,
        joint,
        normal_information(dispersion, dim_x) + correction,
    )


def additive_noise(width: float) -> Task:
    """X uniform on [0, 1], Y = X + uniform noise on [−ε, ε]."""

    def joint(count: int, generator: np.random.Generator) -> np.ndarray:
        x = generator.random(count)
        return np.column_stack([x, x + generator.uniform(-width, width, count)])

    information = 0.25 / width if width > 0.5 else width - np.log(2 * width)
    return Task(f"additive noise, ε {width:g}", 1, 1, joint, float(information))


def mixture(
    name: str,
    dim_x: int,
    means: Sequence[Sequence[float]] | np.ndarray,
    covariances: Sequence[np.ndarray] | np.ndarray,
    weights: Sequence[float] | None = None,
) -> Task:
    """A Gaussian mixture; its information by Monte Carlo over TRUTH_DRAWS rows."""
    mean, covariance = np.asarray(means, float), np.asarray(covariances, float)
    weight = np.full(len(mean), 1 / len(mean)) if weights is None else np.asarray(weights)
    factor = np.linalg.cholesky(covariance)
    dim = mean.shape[1]

    def joint(count: int, generator: np.random.Generator) -> np.ndarray:
        label = generator.choice(len(mean), count, p=weight)
        noise = generator.standard_normal((count, dim, 1))
        return mean[label] + (factor[label] @ noise)[..., 0]

    def log_density(rows: np.ndarray, kept: slice) -> np.ndarray:
        parts = []
        for index in range(len(mean)):
            block = covariance[index][kept, kept]
            inverse = np.linalg.inv(np.linalg.cholesky(block))
            white = (rows[:, kept] - mean[index, kept]) @ inverse.T
            constant = np.log(weight[index]) + np.log(np.diag(inverse)).sum()
            parts.append(constant - 0.5 * (white**2).sum(1) - 0.5 * len(block) * np.log(2 * np.pi))
        return logsumexp(parts, axis=0)

    def information() -> tuple[float, float]:
        rows = joint(TRUTH_DRAWS, np.random.default_rng(20231110))
        sides = slice(0, dim_x), slice(dim_x, dim)
        ratio = log_density(rows, slice(0, dim)) - sum(log_density(rows, side) for side in sides)
        return float(ratio.mean()), float(ratio.std() / np.sqrt(len(ratio)))

    return Task(name, dim_x, dim - dim_x, joint, information, mixture=True)


def x_shape(correlation: float = 0.9) -> Task:
    covariances = [np.array([[1, sign * correlation], [sign * correlation, 1]]) for sign in (-1, 1)]
    return mixture(f"X, ρ {correlation:g}", 1, np.zeros((2, 2)), covariances)


def ai_shape() -> Task:
    slope = 0.95 * np.sqrt(0.04 * 0.2)
    means = [[1, 0], [1, 1], [1, -1], [-0.8, -0.2], [-1.2, 0], [-0.4, 0]]
    bars = [np.diag([0.01, 0.2]), *[np.diag([0.05, 0.001])] * 2, np.diag([0.03, 0.001])]
    legs = [np.array([[0.04, sign * slope], [sign * slope, 0.2]]) for sign in (1, -1)]
    return mixture("AI", 1, means, [*bars, *legs])


def galaxy(speed: float = 0.5, distance: float = 3.0) -> Task:
    """Two balls in three dimensions; the plane of X is wound into a spiral."""
    means = np.array([[-1.0] * 3, [1.0] * 3]) * distance / 2
    balls = mixture(f"speed {speed:g}, distance {distance:g}", 2, means, [np.eye(3)] * 2)
    return transformed(balls, "galaxy", lambda rows: spiral(rows, 0, 1, speed))


def waves(components: int = 12, amplitude: float = 5.0, frequency: float = 3.0) -> Task:
    """Stripes of X, each with one of four values of Y, bent by a sine."""
    index = np.arange(components)
    means = 1.5 * np.column_stack([index, 0 * index, index % 4])
    stripes = mixture(
        f"{components}, amplitude {amplitude:g}",
        2,
        means,
        [np.diag([0.1, 1.0, 0.1])] * components,
    )

    def bend(rows: np.ndarray) -> np.ndarray:
        bent = rows[:, 0] + amplitude * np.sin(frequency * rows[:, 1])
        return np.column_stack([0.1 * bent - 0.8, 0.5 * rows[:, 1]])

    return transformed(stripes, "waves", bend)


def concentric(dim_x: int, components: int = 3) -> Task:
    """Isotropic normals of X with scales 1, 2, …, which Y names up to a hundredth."""
    scales = range(1, components + 1)
    means = [[0.0] * dim_x + [float(scale)] for scale in scales]
    covariances = [np.diag([float(scale**2)] * dim_x + [1e-4]) for scale in scales]
    return mixture(f"concentric {dim_x}×1, {components}", dim_x, means, covariances)


def inliers(dim: int, fraction: float = 0.2, strength: float = 2.0) -> Task:
    """Two correlated pairs, but a fraction of the rows has X and Y independent."""
    signal = pair_correlations(dim, dim, 2, strength)
    return mixture(
        f"inliers {dim}×{dim}, {fraction:.0%}",
        dim,
        np.zeros((2, 2 * dim)),
        [signal, np.eye(2 * dim)],
        [1 - fraction, fraction],
    )


def half_cube(rows: np.ndarray) -> np.ndarray:
    return rows * np.sqrt(np.abs(rows))


def wiggly_x(x: np.ndarray) -> np.ndarray:
    return x + 0.4 * np.sin(x) + 0.2 * np.sin(1.7 * x + 1) + 0.03 * np.sin(3.3 * x - 2.5)


def wiggly_y(y: np.ndarray) -> np.ndarray:
    return y - 0.4 * np.sin(0.4 * y) + 0.17 * np.sin(1.3 * y + 3.5) + 0.02 * np.sin(4.3 * y - 2.5)


def spiral(rows: np.ndarray, first: int, second: int, speed: float) -> np.ndarray:
    """Rotates two coordinates by speed × squared length of the row, in radians."""
    angle = speed * (rows**2).sum(1)
    turned = rows.copy()
    turned[:, first] = np.cos(angle) * rows[:, first] - np.sin(angle) * rows[:, second]
    turned[:, second] = np.sin(angle) * rows[:, first] + np.cos(angle) * rows[:, second]
    return turned


def spiralled(task: Task, speed: float = 1 / 3) -> Task:
    return transformed(
        task,
        "spiral" if speed == 1 / 3 else f"spiral at {speed:g} of",
        lambda rows: spiral(rows, 0, 1, speed),
        lambda rows: spiral(rows, 1, 2, speed),
    )


def swiss_roll(task: Task) -> Task:
    """X in [0, 1] becomes a curve in the plane: two coordinates, one dimension."""

    def roll(rows: np.ndarray) -> np.ndarray:
        angle = 1.5 * np.pi * (1 + 2 * rows)
        return np.hstack([angle * np.cos(angle), angle * np.sin(angle)]) / 21

    return transformed(task, "Swiss roll", roll)


def quantiles_of_two(weight: float, first: float, second: float) -> Transform:
    """Maps uniform coordinates to a mixture of two unit normals with these means."""

    def quantile(probability: float) -> float:
        def excess(value: float) -> float:
            share = weight * ndtr(value - first) + (1 - weight) * ndtr(value - second)
            return float(share - probability)

        return brentq(excess, -15.0, 15.0, xtol=1e-12)

    return np.vectorize(quantile, otypes=[float])


def bimodal(correlation: float = 0.75) -> Task:
    return transformed(
        uniform(bivariate_normal(correlation)),
        "bimodal",
        quantiles_of_two(0.3, 0.0, 5.0),
        quantiles_of_two(0.5, -1.0, 3.0),
    )


def uniform(task: Task) -> Task:
    return transformed(task, "uniform", ndtr, ndtr)


def wiggly(task: Task) -> Task:
    return transformed(task, "wiggly", wiggly_x, wiggly_y)


def half_cubed(task: Task) -> Task:
    return transformed(task, "half-cube", half_cube, half_cube)


def asinh(task: Task) -> Task:
    return transformed(task, "asinh", np.arcsinh, np.arcsinh)


def standard() -> list[Task]:
    """The tasks of the papers, with their parameters."""
    normals = bivariate_normal(), dense_normal(2), dense_normal(5), dense_normal(25)
    pairs = paired_normal(3), paired_normal(5), paired_normal(25)
    return [
        *normals,
        *pairs,
        uniform(normals[0]),
        bimodal(),
        wiggly(normals[0]),
        half_cubed(normals[0]),
        half_cubed(pairs[1]),
        additive_noise(0.1),
        additive_noise(0.75),
        student(1, 1, 1),
        student(3, 3, 2),
        student(5, 5, 2),
        asinh(student(1, 1, 1)),
        asinh(student(3, 3, 2)),
        spiralled(pairs[0]),
        swiss_roll(uniform(normals[0])),
        x_shape(),
        ai_shape(),
        galaxy(),
        waves(),
        concentric(3),
        concentric(5),
        inliers(5),
    ]


def varied() -> list[Task]:
    """Other cases of the same families, for checking only."""
    return [
        bivariate_normal(0.3),
        bivariate_normal(0.95),
        normal("independent 3×3", np.eye(6), 3),
        dense_normal(10, 0.3),
        paired_normal(8, 3, 1.5),
        paired_normal(25, 4, 1.0),
        uniform(paired_normal(3)),
        bimodal(0.9),
        wiggly(bivariate_normal(0.9)),
        half_cubed(bivariate_normal(0.5)),
        additive_noise(0.3),
        additive_noise(0.05),
        student(2, 2, 1),
        student(2, 3, 3, 0.5),
        student(10, 10, 5),
        asinh(student(2, 2, 1)),
        asinh(student(5, 5, 2)),
        spiralled(paired_normal(3), 0.2),
        spiralled(uniform(paired_normal(3))),
        swiss_roll(uniform(bivariate_normal(0.9))),
        x_shape(0.7),
        x_shape(0.97),
        galaxy(0.3, 2.0),
        waves(8, 3.0),
        concentric(2, 5),
        concentric(10, 4),
        inliers(3, 0.4),
        inliers(8, 0.3, 3.0),
    ]


def held_out() -> list[Task]:
    """Yet other cases of the same families, on which nothing was chosen."""
    return [
        bivariate_normal(-0.6),
        bivariate_normal(0.85),
        normal("independent 2×2", np.eye(4), 2),
        dense_normal(3, 0.7),
        dense_normal(15, 0.2),
        paired_normal(4, 4, 0.8),
        paired_normal(25, 1, 3.0),
        uniform(dense_normal(2, 0.6)),
        bimodal(0.6),
        wiggly(bivariate_normal(0.6)),
        half_cubed(bivariate_normal(0.9)),
        half_cubed(paired_normal(3, 1, 1.5)),
        additive_noise(0.2),
        additive_noise(0.6),
        student(1, 1, 2, 0.5),
        student(2, 2, 4),
        student(7, 3, 3),
        asinh(student(1, 1, 3)),
        asinh(student(4, 4, 1)),
        spiralled(paired_normal(3, 1, 3.0), 0.25),
        swiss_roll(uniform(bivariate_normal(0.5))),
        x_shape(0.8),
        x_shape(0.95),
        galaxy(0.2, 2.5),
        waves(6, 2.0, 2.0),
        concentric(4, 4),
        concentric(2, 2),
        concentric(8, 3),
        inliers(4, 0.1, 1.5),
        inliers(6, 0.5, 3.0),
    ]
