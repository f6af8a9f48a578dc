"""Off task or only another author? Planted shares of real text, beside what people use otherwise.

    python benchmarks/scenarios.py --data DIR [--quick]      prints docs/measurements/scenarios.md
    python benchmarks/scenarios.py --data DIR --half choose  the half on which settings were chosen

Scenarios: `scenario_data.py`. Peers: `scenario_peers.py`. For every content and method: mean error
of the share, what 0 % is read as, how often "above 5 %" is claimed where nothing is planted (a peer
claims it when its share is above), how often [at least, at most] holds the truth and its width,
area under the ROC curve of the rows, seconds.
"""

from __future__ import annotations

import argparse
import functools
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent))

from scenario_data import SHARES, Scenario, Texts, scenarios
from scenario_peers import PEERS, Reading, prdc_coverage

from rbpp.assessment import marks, off_task, style
from rbpp.assessment.copies import copied_rows, copies_within
from rbpp.assessment.weighted_rows import Sample
from rbpp.data.static_embedding import POTION, potion_folder, static_embedding

OURS, OURS_CLASSES, OURS_MARKS = "rbpp", "rbpp, classes counted", "rbpp, 20 marks"
SIZES = ((100, 100), (300, 300), (1000, 1000), (3000, 3000), (300, 3000), (1000, 300))
Embed = Callable[[list[str]], np.ndarray]


@dataclass(frozen=True)
class Found:
    """What one method found in one scenario; nan where it says nothing."""

    method: str
    content: str
    true: float
    share: float
    lower: float
    upper: float
    area: float
    seconds: float

    @property
    def claims(self) -> bool:
        """Whether "above 5 %" is claimed: from the lower end, or the share where there is none."""
        return (self.share if np.isnan(self.lower) else self.lower) > 0.05


def embedding(name: str) -> Embed:
    """The vectors of texts by the name of a representation; MiniLM and others by their folder."""
    if name == "TF-IDF":
        raise ValueError("TF-IDF is fitted on both sources together: see `pair`")
    if name in ("wordllama", POTION):
        return lambda texts: static_embedding(texts, name).vectors
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(name)
    return lambda texts: model.encode(texts, normalize_embeddings=True, show_progress_bar=False)


def pair(scenario: Scenario, representation: str) -> tuple[np.ndarray, np.ndarray]:
    """Vectors of both sources at unit length."""
    if representation != "TF-IDF":
        embed = _embedding(representation)
        return embed(scenario.target), embed(scenario.synthetic)
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer

    texts = scenario.target + scenario.synthetic
    words = TfidfVectorizer(sublinear_tf=True, min_df=2).fit_transform(texts)
    rows = TruncatedSVD(min(100, words.shape[1] - 1), random_state=0).fit_transform(words)
    return rows[: len(scenario.target)], rows[len(scenario.target) :]


_embedding = functools.lru_cache(maxsize=2)(embedding)


def ours(
    scenario: Scenario, target: np.ndarray, synthetic: np.ndarray, lexical: bool
) -> Iterator[Found]:
    """What rbpp finds, without and with classes, and with twenty marks."""
    began = time.process_time()
    found = off_task.off_task(
        target, synthetic, kind=off_task.VectorKind(lexical), labels=scenario.labels
    )
    seconds = time.process_time() - began
    area = _area(scenario, found.score)
    ends = found.at_least, found.at_most
    yield Found(OURS, scenario.content, scenario.share, found.share, *ends, area, seconds)
    if found.at_most_with_classes is not None:
        ends = found.at_least, found.at_most_with_classes
        yield Found(
            OURS_CLASSES, scenario.content, scenario.share, found.share, *ends, area, seconds
        )
    asked = marks.rows_to_ask(found.score)
    given = {int(row): bool(scenario.foreign[row]) for row in asked}
    began = time.process_time()
    marked = marks.share_from_marks(found.score, given)
    seconds = time.process_time() - began
    low, high = _interval(marked.draws)
    unmarked = np.ones(len(scenario.foreign), bool)
    unmarked[asked] = False
    rest = _area_of(scenario.foreign[unmarked], marked.probability[unmarked])
    yield Found(
        OURS_MARKS, scenario.content, scenario.share, marked.share, low, high, rest, seconds
    )


def peers(scenario: Scenario, target: np.ndarray, synthetic: np.ndarray) -> Iterator[Found]:
    """What every peer finds."""
    for name, method in PEERS.items():
        began = time.process_time()
        yield _found(name, scenario, method(target, synthetic), began)


def uncovered(scenario: Scenario, target: np.ndarray, synthetic: np.ndarray) -> Iterator[Found]:
    """The same rows with the sources exchanged: the planted rows are the target's."""
    began = time.process_time()
    result = off_task.uncovered(synthetic, target)
    seconds = time.process_time() - began
    yield Found(
        "rbpp, uncovered",
        scenario.content,
        scenario.share,
        result.share,
        result.at_least,
        result.at_most,
        _area(scenario, result.score),
        seconds,
    )
    began = time.process_time()
    yield _found("1 − coverage (prdc)", scenario, prdc_coverage(synthetic, target), began)


def table(found: list[Found], *, by: Callable[[Found], tuple[str, ...]]) -> list[str]:
    """Markdown lines, the worst error first within every content."""
    groups: dict[tuple[str, ...], list[Found]] = {}
    for one in found:
        groups.setdefault(by(one), []).append(one)
    rows = []
    for key, group in groups.items():
        errors = [abs(one.share - one.true) for one in group if not np.isnan(one.share)]
        clean = [one for one in group if one.true == 0]
        held = [
            one.lower - 1e-9 <= one.true <= one.upper + 1e-9
            for one in group
            if not np.isnan(one.lower)
        ]
        width = [one.upper - one.lower for one in group if not np.isnan(one.lower)]
        error = float(np.mean(errors)) if errors else np.nan
        cells = [
            f"{len(group)}",
            _shown(error),
            _shown(_mean([one.share for one in clean])),
            _shown(_mean([float(one.claims) for one in clean]), percent=True),
            _shown(_mean([float(one) for one in held]), percent=True),
            _shown(_mean(width), places=2),
            _shown(_mean([one.area for one in group])),
            f"{np.mean([one.seconds for one in group]):.2f}",
        ]
        rows.append((key, error, cells))
    order = {"near": 0, "mid": 1, "far": 2}
    rows.sort(key=lambda row: (order.get(row[0][0], 3), -np.nan_to_num(row[1], nan=9.0)))
    head = (
        "| content | method | runs | error | 0 % read as | false claims | holds | width | AUC | s |"
    )
    lines = [head, "|---" * 10 + "|"]
    return lines + [f"| {' | '.join([*key, *cells])} |" for key, _, cells in rows]


def run(texts: Texts, args: argparse.Namespace) -> Iterator[str]:
    """The page's sections."""
    shares = (0.0, 0.2) if args.quick else SHARES
    draws = 1 if args.quick else args.draws
    settings = {"shares": shares, "draws": draws, "seed": args.seed}
    for author, title in (("other", "Another author"), ("same", "The same author")):
        found = []
        for scenario in scenarios(texts, args.half, author=author, **settings):
            rows = pair(scenario, args.representation)
            found += ours(scenario, *rows, args.representation == "TF-IDF")
            found += peers(scenario, *rows)
            if author == "other":
                found += uncovered(scenario, *rows)
        yield f"\n## {title}, 300 rows a source\n"
        yield from table(found, by=_by_method)
        yield f"\n### {title}: all contents together\n"
        yield from table(found, by=lambda one: ("all", one.method))
    if args.quick or args.tables:
        return
    yield "\n## Sizes, another author, far content, 20 % and 0 %\n"
    found = []
    for sizes in SIZES:
        settings = {"contents": ("far",), "sizes": sizes, "shares": (0.0, 0.2)}
        for scenario in scenarios(texts, args.half, seed=args.seed, **settings):
            rows = pair(scenario, args.representation)
            label = f"{len(scenario.target)} and {len(scenario.synthetic)}"
            first = next(ours(_without_labels(scenario), *rows, False))
            found.append((label, first))
    yield from table([Found(label, *_values(one)) for label, one in found], by=_by_method)
    yield "\n## Representations, another author, 20 % and 0 %\n"
    names = ["TF-IDF", "wordllama"]
    names += [POTION] if potion_folder() is not None else []
    names += [args.model] if args.model else []
    found = []
    for name in names:
        for scenario in scenarios(texts, args.half, shares=(0.0, 0.2), seed=args.seed):
            rows = pair(scenario, name)
            first = next(ours(_without_labels(scenario), *rows, name == "TF-IDF"))
            found.append(Found(name, *_values(first)))
    yield from table(found, by=_by_method)
    yield "\n## Copies\n"
    yield from copies(texts, args)


def copies(texts: Texts, args: argparse.Namespace) -> Iterator[str]:
    """Repeated synthetic rows, and synthetic rows that repeat anchors, one in ten."""
    yield "| | shares found, every row once / five times | copies found, of those planted | false |"
    yield "|---|---|---|---|"
    for scenario in scenarios(
        texts, args.half, contents=("far",), shares=(0.2,), sizes=(300, 300), seed=args.seed
    ):
        target, synthetic = pair(scenario, args.representation)
        five = np.repeat(synthetic, 5, axis=0)
        once = off_task.off_task(target, synthetic).share
        again = copies_within(five, target)
        often = off_task.off_task(target, Sample(five, weight=again.weights)).share
        anchors, held_out = target[:150], target[150:]
        mixed = np.concatenate([synthetic, anchors[: len(synthetic) // 10]])
        copied = copied_rows(mixed, anchors, held_out).false_discovery_rate < 0.1
        hit = copied[len(synthetic) :].mean()
        yield (
            f"| {scenario.name} | {once:.3f} / {often:.3f} | {hit:.0%} | "
            f"{copied[: len(synthetic)].mean():.1%} |"
        )


def main() -> None:
    """Prints the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--half", choices=("choose", "report"), default="report")
    parser.add_argument("--representation", default="wordllama", help="or TF-IDF, a model's folder")
    parser.add_argument("--model", help="a sentence-transformers model to stand beside the others")
    parser.add_argument("--draws", type=int, default=1, help="of every scenario")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tables", action="store_true", help="300 rows only, all shares")
    parser.add_argument("--quick", action="store_true", help="300 rows, two shares")
    args = parser.parse_args()
    if not (args.data / "outcomes").is_dir():
        parser.error(f"Expected a folder with outcomes/ in it; got {args.data}")
    for line in run(Texts(args.data), args):
        print(line, flush=True)


def _interval(draws: np.ndarray, mass: float = 0.94) -> tuple[float, float]:
    """The shortest interval with this mass."""
    ordered = np.sort(draws)
    held = int(np.ceil(mass * len(ordered)))
    start = int((ordered[held - 1 :] - ordered[: len(ordered) - held + 1]).argmin())
    return float(ordered[start]), float(ordered[start + held - 1])


def _by_method(one: Found) -> tuple[str, ...]:
    return one.content, one.method


def _found(name: str, scenario: Scenario, reading: Reading, began: float) -> Found:
    seconds = time.process_time() - began
    area = np.nan if reading.score is None else _area(scenario, reading.score)
    nothing = float("nan")
    return Found(
        name, scenario.content, scenario.share, reading.share, nothing, nothing, area, seconds
    )


def _values(one: Found) -> tuple:
    return one.content, one.true, one.share, one.lower, one.upper, one.area, one.seconds


def _without_labels(scenario: Scenario) -> Scenario:
    from dataclasses import replace

    return replace(scenario, labels=None)


def _area(scenario: Scenario, score: np.ndarray) -> float:
    return _area_of(scenario.foreign, score)


def _area_of(foreign: np.ndarray, score: np.ndarray) -> float:
    if not foreign.any() or foreign.all():
        return float("nan")
    return style.auc(score[~foreign], score[foreign])


def _mean(values: list[float]) -> float:
    kept = [value for value in values if not np.isnan(value)]
    return float(np.mean(kept)) if kept else float("nan")


def _shown(value: float, *, percent: bool = False, places: int = 3) -> str:
    if np.isnan(value):
        return "–"
    return f"{value:.0%}" if percent else f"{value:.{places}f}"


if __name__ == "__main__":
    main()
