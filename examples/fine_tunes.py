"""Fine-tune a small network on real and on synthetic digits, and bound what each will lose.

    python examples/fine_tunes.py

The task D is scikit-learn's digits in ten principal components. The generator M is a Gaussian per
digit fitted to other digits; prompted with the anchors, it moves half-way to the Gaussians of the
anchors, and gives the synthetic rows. Thirty networks are fine-tuned from one initialisation on
either row of every pair of anchors, thirty more on either row of every pair of synthetic rows: two
supersamples, in which the gap, the bounds by conditional mutual information and the formulas of the
theory stand side by side. A published formula needs I(S; W) of a network; here it is bounded for
weights with stated noise, by fine-tunes on fresh synthetic rows.
"""

from __future__ import annotations

import warnings
from typing import Any

import torch
from sklearn.datasets import load_digits
from torch import Tensor

import rbpp

FINE_TUNES, PAIRS, DIMENSION, HIDDEN, CLASSES = 30, 100, 10, 32, 10
NOISE = 0.3  # standard deviation on every weight of the learner that I(S; W) is about
LABEL_SPREAD = 100.0  # labels lie so far apart as a coordinate that rows of two never meet
SHOWN = (
    "bound_cmi_fast_rate",
    "bound_cmi_binary_kl_pooled",
    "bound_cmi_loss_difference",
    "bound_cmi_samplewise",
    "bound_cmi_evaluated",
)


def main(
    fine_tunes: int = FINE_TUNES, pairs: int = PAIRS, draws: int = 150, seed: int = 0
) -> dict[str, Any]:
    """Print the table, and return its main numbers."""
    source = rbpp.generator(rbpp.spawn(seed, "example"))
    rows, labels = digits(source)
    anchors, other = slice(0, 2 * pairs), slice(2 * pairs, 4 * pairs)
    held_out = slice(4 * pairs, None)
    real = class_gaussians(rows[held_out], labels[held_out])
    model = class_gaussians(rows[other], labels[other])
    prompted = between(model, class_gaussians(rows[anchors], labels[anchors]))
    start = initial_network(source)

    results = {}
    made = draw_rows(prompted, 2 * pairs, source)
    for name, (x, y) in {
        "anchors": (rows[anchors], labels[anchors]),
        "synthetic": made,
    }.items():
        x, y = x.unflatten(0, (pairs, 2)), y.unflatten(0, (pairs, 2))
        masks = torch.randint(2, (fine_tunes, pairs), generator=source)
        chosen = masks.unsqueeze(-1)
        own_x = x.expand(fine_tunes, -1, -1, -1).gather(
            2, chosen.unsqueeze(-1).expand(-1, -1, -1, x.shape[-1])
        )
        own_y = y.expand(fine_tunes, -1, -1).gather(2, chosen)
        weights = fine_tune(start, own_x.squeeze(2), own_y.squeeze(2))
        losses = errors(weights, x.flatten(0, 1), y.flatten()).unflatten(-1, (pairs, 2))
        found = rbpp.fine_tune_bounds(losses, masks, draws=draws, chains=2, seed=seed)
        task_error = errors(weights, rows[held_out], labels[held_out]).mean()
        results[name] = found, float(task_error), float(losses.gather(-1, chosen).mean())

    # I(S_gen; W) for the published formula: fresh rows from the generator for every fine-tune.
    fresh = [draw_rows(prompted, pairs, source) for _ in range(fine_tunes)]
    fresh_x, fresh_y = (torch.stack(part) for part in zip(*fresh, strict=True))
    weights = fine_tune(start, fresh_x, fresh_y)
    information = noisy_weight_information(weights)
    noisy = with_noise(weights, source)
    on_own = (forward(noisy, fresh_x).argmax(-1) != fresh_y).to(torch.float64).mean()
    distance = abs(float(errors(noisy, rows[held_out], labels[held_out]).mean() - on_own))
    gap = float(errors(noisy, *draw_rows(prompted, 2000, source)).mean() - on_own)
    task, generation = (
        float(rbpp.total_variation(*pair, num_samples=2048, generator=source).value)
        for pair in ((real, model), (model, prompted))
    )
    sub_gaussian = rbpp.lemmas.sub_gaussian_constant(1.0)
    stated = rbpp.lemmas.theorem_4_7(
        task, generation, information, pairs, loss_bound=1.0, sub_gaussian=sub_gaussian
    )
    last_term = rbpp.lemmas.lemma_4_4(information, pairs, sub_gaussian=sub_gaussian)

    print(f"{fine_tunes} fine-tunes on {pairs} rows each; losses are 0 or 1\n")
    print(f"{'':36}{'anchors':>22}{'synthetic':>22}")
    gaps = [f"{found.measured_gap:.3f}" for found, _, _ in results.values()]
    print(f"{'measured gap':36}{gaps[0]:>22}{gaps[1]:>22}")
    for name in SHOWN:
        cells = []
        for found, _, _ in results.values():
            term = found.table()[name]
            cells.append(f"{term['mean']:.3f} [{term['hdi_low']:.3f}, {term['hdi_high']:.3f}]")
        print(f"{name:36}{cells[0]:>22}{cells[1]:>22}")
    floors = [
        f"{found.comparison['bound_cmi_samplewise']['null_plug_in']:.3f}"
        for found, _, _ in results.values()
    ]
    print(f"{'plug-in floor of bound_cmi_samplewise':36}{floors[0]:>21}{floors[1]:>22}\n")
    for name, (_, error, training) in results.items():
        print(f"trained on {name}: loss {training:.3f} there, {error:.3f} on held-out real digits")
    print(
        f"\nTheorem 4.7 for networks with noise of {NOISE} on every weight, whose I(S_gen; W) ≤ "
        f"{float(information):.0f} nats,\nTV(D, D_M) = {task:.2f} and TV(D_M, D_gen) = "
        f"{generation:.2f}:\n    Err = {distance:.3f} ≤ {float(stated):.2f}, of which "
        f"{float(last_term):.2f} stand for their gap of {gap:.3f}."
    )
    return {
        "gap": [found.measured_gap for found, _, _ in results.values()],
        "fast_rate": [
            found.table()["bound_cmi_fast_rate"]["mean"] for found, _, _ in results.values()
        ],
        "error": distance,
        "theorem_4_7": float(stated),
    }


def digits(generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """All digits in random order, as ten principal components of unit total scale."""
    data = load_digits()
    pixels = torch.as_tensor(data.data, dtype=torch.float64)
    order = torch.randperm(len(pixels), generator=generator)
    pixels, labels = pixels[order], torch.as_tensor(data.target)[order]
    centred = pixels - pixels.mean(0)
    _, _, directions = torch.linalg.svd(centred, full_matrices=False)
    rows = centred @ directions[:DIMENSION].T
    return rows / rows.std(), labels


def class_gaussians(rows: Tensor, labels: Tensor) -> rbpp.GaussianMixture:
    """A Gaussian per digit, the digit being one more coordinate: rows and labels jointly."""
    means, covariances, weights = [], [], []
    ridge = 0.02 * torch.eye(DIMENSION, dtype=rows.dtype)
    for label in range(CLASSES):
        own = rows[labels == label]
        mean = torch.cat([own.mean(0), torch.tensor([LABEL_SPREAD * label])])
        covariance = torch.eye(DIMENSION + 1, dtype=rows.dtype)
        # Fewer rows than it takes: shrunk towards the variance that all directions share.
        spread = own.T.cov().diagonal().mean() * torch.eye(DIMENSION, dtype=rows.dtype)
        covariance[:DIMENSION, :DIMENSION] = 0.7 * own.T.cov() + 0.3 * spread + ridge
        means.append(mean)
        covariances.append(covariance)
        weights.append(len(own) / len(rows))
    return rbpp.GaussianMixture(
        torch.tensor(weights, dtype=rows.dtype), torch.stack(means), torch.stack(covariances)
    )


def between(first: rbpp.GaussianMixture, second: rbpp.GaussianMixture) -> rbpp.GaussianMixture:
    """Half-way from one to the other."""
    return rbpp.GaussianMixture(
        (first.weights + second.weights) / 2,
        (first.means + second.means) / 2,
        (first.covariances + second.covariances) / 2,
    )


def draw_rows(
    distribution: rbpp.GaussianMixture, count: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Rows and labels of the generator."""
    drawn = distribution.sample((count,), generator=generator)
    labels = (drawn[:, -1] / LABEL_SPREAD).round().clamp(0, CLASSES - 1).long()
    return drawn[:, :DIMENSION], labels


def initial_network(generator: torch.Generator) -> list[Tensor]:
    """What every fine-tune starts from."""

    def normal(*shape: int) -> Tensor:
        drawn = torch.randn(*shape, generator=generator, dtype=torch.float64)
        return drawn / shape[0] ** 0.5

    return [normal(DIMENSION, HIDDEN), normal(1, HIDDEN), normal(HIDDEN, CLASSES)]


def fine_tune(start: list[Tensor], x: Tensor, y: Tensor, steps: int = 250) -> list[Tensor]:
    """All fine-tunes at once: rows (k, n, d) and labels (k, n) give weights (k, …)."""
    weights = [part.repeat(len(x), 1, 1).requires_grad_() for part in start]
    optimiser = torch.optim.Adam(weights, lr=0.02)
    for _ in range(steps):
        optimiser.zero_grad()
        logits = forward(weights, x)
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), y.flatten())
        loss.backward()
        optimiser.step()
    return [part.detach() for part in weights]


def forward(weights: list[Tensor], x: Tensor) -> Tensor:
    """Logits (k, n, classes)."""
    first, offset, second = weights
    return torch.tanh(x @ first + offset) @ second


def errors(weights: list[Tensor], x: Tensor, y: Tensor) -> Tensor:
    """0-1 loss (k, n) of every network on the same rows."""
    return (forward(weights, x).argmax(-1) != y).to(torch.float64)


def with_noise(weights: list[Tensor], generator: torch.Generator) -> list[Tensor]:
    """The learner that the information is about: every weight with normal noise."""
    return [
        part + NOISE * torch.randn(part.shape, generator=generator, dtype=part.dtype)
        for part in weights
    ]


def noisy_weight_information(weights: list[Tensor]) -> Tensor:
    """I(S; W) ≤ E KL(N(w, s²) ‖ N(m, v + s²)) for weights w with noise of variance s².

    It is the golden formula: a bound for every reference that does not see S, here the mean and
    variance of the other fine-tunes, weight by weight.
    """
    values = torch.cat([part.flatten(1) for part in weights], dim=1)
    count = len(values)
    mean = (values.sum(0) - values) / (count - 1)
    second = (values.square().sum(0) - values.square()) / (count - 1)
    reference = second - mean.square() + NOISE**2
    ratio = (NOISE**2 + (values - mean).square()) / reference
    return ((reference / NOISE**2).log() + ratio - 1).sum(1).mean() / 2


if __name__ == "__main__":
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        main()
