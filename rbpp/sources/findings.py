"""The posterior as tables and sentences: by row, by component, what was assumed, what to answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from rbpp.checks import Check, verdict_of
from rbpp.estimate import Estimate
from rbpp.inference_data import highest_density_interval
from rbpp.mixtures.conjugate import VariationalMixture
from rbpp.sources.own_mixtures import OwnMixtures
from rbpp.sources.scene import Scene
from rbpp.sources.shares import OWN_ODDS, RATIO, Shares

# Shares and divergences below these make no difference that anyone would act on.
SMALL_SHARE, SMALL_DIVERGENCE = 0.05, 0.1
# A probability beyond which a sentence is said without "perhaps".
SURE = 0.9
FEW_ROWS = 30
# A component with less than this share in every source is one that the sparse prior emptied.
EMPTY = 0.005
_LARGEST_REDUNDANCY = 10.0
_EXAMPLES, _KEYWORDS = 3, 6


def row_table(scene: Scene, shares: Shares, members: Tensor) -> pd.DataFrame:
    """One line per row of every source; see `rbpp.sources.assessment.Assessment`.

    Args:
        scene: the sources.
        shares: the posterior of weights and parts.
        members: responsibilities (chain, n, component).
    """

    likely = members.mean(0)
    # Rows of the compared sources have probabilities of their own; others those of their places.
    off_task, uncovered, unsampled = chances(shares, members)
    off_task[scene.source == scene.index("synthetic")] = shares.irrelevant.probability.to(members)
    uncovered[scene.source == scene.reference] = shares.uncovered.probability.to(members)
    if shares.irrelevant_output is not None:
        before = shares.irrelevant_output.probability.to(members)
        off_task[scene.source == scene.index("output")] = before
    rows: list[str] = []
    groups: list[str | None] = []
    texts: list[str | None] = []
    for source in scene.sources:
        rows += list(source.ids)
        groups += list(source.groups) if source.groups is not None else [None] * len(source)
        texts += list(source.text) if source.text is not None else [None] * len(source)
    table = pd.DataFrame(
        {
            "source": np.asarray(scene.roles)[scene.source.numpy()],
            "id": rows,
            "group": groups,
            "off_task": off_task.numpy(),
            "novel": (unsampled * (1 - off_task)).numpy(),
            "uncovered": uncovered.numpy(),
            "redundancy": np.concatenate([_redundancy(part) for part in scene.vectors]),
            "component": likely.argmax(-1).numpy(),
            "component_probability": likely.max(-1).values.numpy(),
            "x": np.concatenate([part[:, 0].numpy() for part in scene.coordinates]),
            "y": np.concatenate([part.numpy() for part in scene.contrasts]),
            "text": texts,
        }
    )
    return table


def chances(shares: Shares, members: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """What the components of rows say: off-task, uncovered, unsampled, (n,) each.

    Args:
        shares: the posterior.
        members: responsibilities (chain, n, component).
    """

    def of_component(chance: Tensor) -> Tensor:
        return (members @ chance.to(members).unsqueeze(-1)).squeeze(-1).mean(0)

    return (
        of_component(shares.irrelevant_rate),
        of_component(shares.uncovered_rate),
        of_component(shares.unsampled.to(members).mean(1)),
    )


def _redundancy(vectors: np.ndarray) -> np.ndarray:
    """log of the median nearest-neighbour distance over the row's own, at most 10."""
    from sklearn.neighbors import NearestNeighbors

    distance = NearestNeighbors(n_neighbors=1).fit(vectors).kneighbors()[0][:, 0]
    typical = np.median(distance[distance > 0]) if (distance > 0).any() else 1.0
    return -np.log(np.maximum(distance / typical, np.exp(-_LARGEST_REDUNDANCY)))


def component_table(
    scene: Scene, fit: VariationalMixture, shares: Shares, members: Tensor
) -> pd.DataFrame:
    """One line per component; see `rbpp.sources.assessment.Assessment`."""
    likely = members.mean(0)
    source = scene.source
    share = shares.weights.mean((0, 1))
    assert fit.elbo is not None
    best = fit.expected().select(int(fit.elbo.argmax()))
    covariances = best.covariances
    chance = {
        "p_irrelevant": shares.irrelevant_rate.mean(0),
        "p_uncovered": shares.uncovered_rate.mean(0),
        "p_unsampled": shares.unsampled.double().mean((0, 1)),
    }
    real = torch.as_tensor([role in ("anchor", "target") for role in scene.roles])[source]
    names = [
        text
        for rows in scene.sources
        for text in (rows.text if rows.text is not None else rows.ids)
    ]
    keywords = _keywords(scene, likely)
    lines = []
    for component in range(fit.components):
        own = likely.argmax(-1) == component
        candidates = own & real if bool((own & real).sum() >= 2) else own
        chances = {name: float(value[component]) for name, value in chance.items()}
        lines.append(
            {
                "part": _part(chances, float(share[:, component].max())),
                **chances,
                **{
                    f"share_{role}": float(share[index, component])
                    for index, role in enumerate(scene.roles)
                },
                "nearest": _nearest(scene, candidates, names),
                "keywords": keywords[component],
                "x": float(best.means[component, 0]),
                "y": float(best.means[component, -1]),
                "xx": float(covariances[component, 0, 0]),
                "xy": float(covariances[component, 0, -1]),
                "yy": float(covariances[component, -1, -1]),
            }
        )
    table = pd.DataFrame(lines)
    table.index.name = "component"
    return table


def _part(chances: dict[str, float], largest_share: float) -> str:
    if largest_share < EMPTY:
        return "empty"
    for part in ("irrelevant", "uncovered", "unsampled"):
        if chances[f"p_{part}"] > 0.5:
            return part
    return "shared"


def _nearest(scene: Scene, candidates: Tensor, names: list[str]) -> list[str]:
    """The candidates nearest to their mean in the principal components."""
    index = candidates.nonzero().squeeze(-1)
    if not len(index):
        return []
    rows = torch.cat(scene.coordinates)[index]
    order = (rows - rows.mean(0)).square().sum(-1).argsort()
    distinct = dict.fromkeys(names[int(index[place])] for place in order)
    return list(distinct)[:_EXAMPLES]


def _keywords(scene: Scene, likely: Tensor) -> list[list[str]]:
    """Words that a component's rows use more than the others do."""
    if any(rows.text is None for rows in scene.sources):
        return [[] for _ in range(likely.shape[1])]
    from sklearn.feature_extraction.text import TfidfVectorizer

    texts = [text for rows in scene.sources if rows.text is not None for text in rows.text]
    vectorizer = TfidfVectorizer(stop_words="english", sublinear_tf=True, max_features=20_000)
    try:
        words = vectorizer.fit_transform(texts)
    except ValueError:  # nothing but stop words
        return [[] for _ in range(likely.shape[1])]
    names = vectorizer.get_feature_names_out()
    overall = np.asarray(words.mean(0)).ravel()
    result: list[list[str]] = []
    for column in likely.numpy().T:
        total = column.sum()
        if total < 1:
            result.append([])
            continue
        excess = (words.T @ column) / total - overall
        result.append([str(names[place]) for place in np.argsort(-excess)[:_KEYWORDS]])
    return result


def elbo(fit: VariationalMixture) -> np.ndarray:
    """Evidence lower bound (chain,) of the shared mixture, in nats."""
    assert fit.elbo is not None
    return fit.elbo.numpy()


def settings(
    scene: Scene, fit: VariationalMixture, shared: int, mixtures: OwnMixtures, seed: int
) -> dict[str, Any]:
    """What the numbers depend on."""
    return {
        "embedding": scene.embedding,
        "dimension": scene.projection.dimension,
        "explained_variance": float(scene.projection.explained.sum()),
        "shared_dimension": shared,
        "shared_components": fit.components,
        "own_components": dict(zip(scene.roles, mixtures.components, strict=True)),
        "rows": {rows.source: rows.size for rows in scene.sources},
        "origins": {rows.source: rows.origin for rows in scene.sources},
        "chains": int(fit.mean.shape[0]),
        "ratio": RATIO,
        "own_odds": OWN_ODDS,
        "seed": seed,
    }


def checks(
    scene: Scene, fit: VariationalMixture, terms: Mapping[str, Estimate], settings: dict[str, Any]
) -> list[Check]:
    """What was assumed, and what of it could be checked."""
    found: list[Check] = []
    if "target" not in scene.roles:
        found.append(
            Check(
                "target data",
                "unknown",
                "no target rows: the anchors stand in for the task, so that what is new on the "
                "task (novel) cannot be told from what is off it (irrelevant), and the KL gap has "
                "no anchors of its own to compare with",
            )
        )
    found.append(enough_rows(settings["rows"]))
    found.append(projected(settings["dimension"], settings["explained_variance"]))
    spread = _between_chains(terms["irrelevant_share"].value)
    found.append(
        Check(
            "restarts agree",
            verdict_of(spread < SMALL_SHARE),
            f"the restarts' irrelevant shares lie within {spread:.3f} of each other",
            {"spread": spread},
        )
    )
    assert fit.converged is not None
    found.append(
        Check(
            "converged",
            verdict_of(bool(fit.converged.all())),
            f"{int(fit.converged.sum())} of {len(fit.converged)} fits settled within the tolerance",
            {"share": float(fit.converged.double().mean())},
        )
    )
    for source, groups in zip(scene.sources, scene.groups, strict=True):
        if groups is not None:
            number = int(groups.max()) + 1
            message = f"{len(source)} rows in {number} groups: intervals count groups, not rows"
            found.append(
                Check(f"groups of {source.source}", "unknown", message, {"groups": number})
            )
    repeated = int(
        sum(len(source) - len(set(source.text)) for source in scene.sources if source.text)
    )
    if repeated:
        message = f"{repeated} rows repeat the text of another"
        found.append(Check("repeated rows", "unknown", message, {"rows": repeated}))
    return found


def enough_rows(counts: Mapping[str, int]) -> Check:
    """Whether every source has rows enough, by its number of rows."""
    few = {name: count for name, count in counts.items() if count < FEW_ROWS}
    return Check(
        "enough rows",
        verdict_of(not few),
        f"fewer than {FEW_ROWS} rows in {', '.join(few)}: its intervals are wide and its "
        "components mostly prior"
        if few
        else f"every source has at least {FEW_ROWS} rows",
        {"fewest": min(counts.values()), "few": few},
    )


def projected(dimension: int, explained: float) -> Check:
    """That the numbers are those of a projection."""
    return Check(
        "projection",
        "unknown",
        f"{dimension} principal components hold {explained:.0%} of the variance: informations and "
        "divergences are those of the projection, lower bounds of those of the whole rows",
        {"explained_variance": explained},
    )


def known_share(share: Estimate, truth: float) -> Check:
    """Whether the 94 % interval holds the off-task share that the generator recorded."""
    low, high = highest_density_interval(share.value.flatten().numpy(), 0.94)
    return Check(
        "true off-task share",
        verdict_of(low <= truth <= high),
        f"the generator recorded {truth:.1%} off-task rows, and the 94 % interval is "
        f"[{low:.1%}, {high:.1%}]",
        {"truth": truth, "low": low, "high": high},
    )


def _between_chains(value: Tensor) -> float:
    means = value.mean(1)
    return float(means.max() - means.min())


def answers(
    scene: Scene, estimates: Mapping[str, Estimate], rows: pd.DataFrame
) -> list[dict[str, Any]]:
    """The five questions of whoever made the data, each with the probability of its answer."""
    terms = {name: estimate.value for name, estimate in estimates.items()}
    task = task_name(scene)
    synthetic = rows[rows["source"] == "synthetic"]
    result = [
        _answer(
            "Is any of it off-task?",
            f"{_share(terms['irrelevant_share'])} of the synthetic data lies where the {task} "
            "has next to nothing",
            terms["irrelevant_share"],
            SMALL_SHARE,
        ),
        _answer(
            "What does it miss?",
            f"it misses {_share(terms['uncovered_share'])} of the {task}",
            terms["uncovered_share"],
            SMALL_SHARE,
        ),
        _answer(
            "How faithful is it?",
            f"its distribution differs from the {task} by a total variation of "
            f"{_share(terms['total_divergence'])}",
            terms["total_divergence"],
            SMALL_DIVERGENCE,
        ),
    ]
    if "novel_share" in terms:
        novel = terms["novel_share"]
        probability = float((novel > SMALL_SHARE).double().mean())
        result.append(
            {
                "question": "How much does it add?",
                "sentence": f"{_share(novel)} of the synthetic data is on the task and beyond the "
                f"anchors; above {SMALL_SHARE:.0%} with probability {probability:.2f}",
                "probability": probability,
                "verdict": "good" if probability > SURE else "unclear",
            }
        )
    else:
        result.append(
            {
                "question": "How much does it add?",
                "sentence": "without both anchors and target rows, what is novel cannot be told "
                "from what is irrelevant",
                "probability": float("nan"),
                "verdict": "unclear",
            }
        )
    likely = synthetic["off_task"][synthetic["off_task"] > 0.5]
    result.append(which_rows(task, len(synthetic), len(likely), float(likely.sum())))
    return result


def task_name(scene: Scene) -> str:
    """What stands for the task in sentences."""
    return "task" if "target" in scene.roles else "anchor set"


def which_rows(task: str, count: int, drop: int, total: float) -> dict[str, Any]:
    """The last answer.

    Args:
        task: what stands for the task.
        count: synthetic rows.
        drop: those that are more likely off the task than on it.
        total: the sum of their probabilities.
    """
    expected = total / drop if drop else 1.0
    return {
        "question": "Which rows should go?",
        "sentence": f"{drop} of {count} synthetic rows are more likely off the {task} than on it"
        + (f"; each of them with probability {expected:.2f} on average" if drop else ""),
        "probability": expected,
        "verdict": "bad" if drop > SMALL_SHARE * count else "good",
    }


def _answer(question: str, sentence: str, value: Tensor, small: float) -> dict[str, Any]:
    """A statement about a share of which less is better."""
    above = float((value > small).double().mean())
    if above >= 0.5:
        claim, probability = f"above {small:.0%}", above
    else:
        claim, probability = f"at most {small:.0%}", 1 - above
    verdict = "unclear" if probability < SURE else "bad" if above >= 0.5 else "good"
    return {
        "question": question,
        "sentence": f"{sentence}; {claim} with probability {probability:.2f}",
        "probability": probability,
        "verdict": verdict,
    }


def _share(value: Tensor) -> str:
    low, high = highest_density_interval(value.flatten().numpy(), 0.94)
    return f"{float(value.mean()):.1%} [{low:.1%}, {high:.1%}]"


def sensitivity_line(
    dimension: int, explained: np.ndarray, terms: Mapping[str, Estimate], chosen: bool
) -> dict[str, Any]:
    """One line of the sensitivity table."""
    share = terms["irrelevant_share"].value.flatten().numpy()
    low, high = highest_density_interval(share, 0.94)
    return {
        "dimension": dimension,
        "explained_variance": float(explained[:dimension].sum()),
        "irrelevant_share": float(share.mean()),
        "irrelevant_low": low,
        "irrelevant_high": high,
        "total_divergence": float(terms["total_divergence"].value.mean()),
        "chosen": chosen,
    }
