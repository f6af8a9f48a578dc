"""Is it true? Known shares of real text, planted, against the intervals that rbpp gives them.

    python benchmarks/truth.py --data DIR             planted, uncovered, left_out, same
    python benchmarks/truth.py --data DIR --text whole
    python benchmarks/truth.py --data DIR --parts ranking sensitivity --embedding-model NAME

DIR holds code_alpaca_2k.json (CodeAlpaca), gpt4_codegen.json and gpt4_roleplay.json (GPTeacher),
self_instruct_seed_tasks.jsonl and user_oriented_instructions.jsonl (Self-Instruct), and
synque_sentiment/ (SynQuE). docs/measurements/truth.md is the output.

- planted: target and synthetic are disjoint random parts of the code tasks; a share of the
  synthetic rows is replaced by role-play. True value: that share. Also the area under the ROC curve
  of the rows' off-task probability.
- uncovered: general tasks replace a share of the target's rows instead. Those that speak of code
  are left out (`CODE`; 35 of 426 instructions): the code tasks cover them, so that no share is
  known. `--parts uncovered_all` plants them too.
- left_out: general tasks replace a share of the synthetic rows, and the target has none.
- same: disjoint random parts of one data set. A claim of difference is an answer "above" with a
  probability over 0.9 (irrelevant or uncovered share above 5 %, total variation above 10 %).
- ranking: Spearman correlation over 32 synthetic sets of the ranking by `rbpp compare` with the F1
  on real data of a model trained on each, against five draws of 198 real rows, with its interval
  over the sets and over the posterior. Settings are the defaults of `rbpp compare`.
- sensitivity: the same for the first draw in other numbers of principal components.
"""

from __future__ import annotations

import argparse
import csv
import re
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

SHARES = (0.0, 0.05, 0.1, 0.2, 0.3, 0.5)
SIZES = (300, 500, 1000, 2000, 4000)
# What a row's text is: its instruction, or all of it; in the tasks of a language model, and in the
# tasks written by people.
FIELDS = {
    "instruction": ("instruction", "instruction"),
    "whole": (
        "instruction,input,output|response",
        "instruction,instances.0.input,instances.0.output",
    ),
}
CODE = re.compile(
    r"\b(code|coding|program|programming|python|javascript|java|sql|html|css|script|algorithm|regex"
    r"|latex|bash|excel|sheets|variable|syntax|command)\b",
    re.IGNORECASE,
)
REAL_DRAWS = (42, 43, 44, 45, 46)
# Principal components beside the default, the number of real rows up to 32.
OTHER_DIMENSIONS = (4, 8, 16, 24, 48)


@dataclass(frozen=True)
class Run:
    """One data set with a known share: what was true, and what was found of it."""

    size: int
    share: float
    mean: float
    low: float
    high: float
    area: float
    seconds: float

    @property
    def covered(self) -> bool:
        """Whether the 94 % interval holds the true share."""
        return self.low <= self.share <= self.high


def texts(path: Path, field: str) -> list[str]:
    """The distinct texts of a file, in its order."""
    from rbpp.data.rows import read_rows

    found = read_rows(path, path.stem, text_fields=field.split(","))
    assert found.text is not None
    return list(dict.fromkeys(found.text))


def found_shares(target: list[str], synthetic: list[str], seed: int):
    """Draws of the shares and of total variation, and the rows' table, of two lists of texts."""
    from rbpp import assess

    found = assess(None, synthetic, target=target, seed=seed)
    names = ("irrelevant_share", "uncovered_share", "total_divergence")
    return {name: found.idata["posterior"][name].values for name in names}, found.rows


def planted(clean: list[str], foreign: list[str], share: float, size: int, seed: int, part: str):
    """A run with `foreign` rows in the synthetic data (part irrelevant) or target (uncovered)."""
    from sklearn.metrics import roc_auc_score

    from rbpp.inference_data import highest_density_interval

    random = np.random.default_rng([seed, size])
    order = random.permutation(len(clean))
    size = min(size, int(len(clean) // 2 / (1 - share)))  # half of the clean rows is for the other
    extra = round(share * size)
    kept = size - extra
    mixed = [clean[i] for i in order[:kept]]
    mixed += [foreign[i] for i in random.permutation(len(foreign))[:extra]]
    pure = [clean[i] for i in order[kept : kept + min(size, len(clean) - kept)]]
    began = time.perf_counter()
    pair = (pure, mixed) if part == "irrelevant" else (mixed, pure)
    terms, rows = found_shares(*pair, seed)
    draws = terms[f"{part}_share"].ravel()
    low, high = highest_density_interval(draws, 0.94)
    area = float("nan")
    if extra:
        source, column = ("synthetic", "off_task") if part == "irrelevant" else ("target", part)
        score = rows.loc[rows["source"] == source, column].astype(float)
        area = roc_auc_score(np.arange(len(mixed)) >= kept, score)
    seconds = time.perf_counter() - began
    return Run(len(mixed), extra / len(mixed), draws.mean(), low, high, area, seconds)


def same(rows: list[str], size: int, seed: int) -> tuple[bool, dict[str, float]]:
    """Whether two disjoint random parts are claimed to differ, and the probabilities behind it."""
    from rbpp.assessment.answers import SMALL_DIVERGENCE, SMALL_SHARE, SURE

    random = np.random.default_rng([seed, size])
    order = random.permutation(len(rows))
    half = min(size, len(rows) // 2)
    first = [rows[i] for i in order[:half]]
    second = [rows[i] for i in order[half : 2 * half]]
    terms, _ = found_shares(first, second, seed)
    above = {
        name: float((terms[name] > small).mean())
        for name, small in (
            ("irrelevant_share", SMALL_SHARE),
            ("uncovered_share", SMALL_SHARE),
            ("total_divergence", SMALL_DIVERGENCE),
        )
    }
    return max(above.values()) >= SURE, above


def planted_table(runs: list[Run]) -> list[str]:
    """Markdown: by true share, then over all."""
    lines = [
        "| true share | runs | mean found | mean error | coverage | mean interval | largest upper "
        "end | area under ROC (mean, least) |",
        "|---|---|---|---|---|---|---|---|",
    ]
    by_share = {share: [run for run in runs if abs(run.share - share) < 0.01] for share in SHARES}
    for name, group in [*((f"{s:.0%}", g) for s, g in by_share.items()), ("all", runs)]:
        if not group:
            continue
        error = np.mean([abs(run.mean - run.share) for run in group])
        areas = [run.area for run in group if run.area == run.area]
        area = f"{np.mean(areas):.3f}, {min(areas):.3f}" if areas else "–"
        lines.append(
            f"| {name} | {len(group)} | {np.mean([run.mean for run in group]):.1%} | {error:.1%} | "
            f"{sum(run.covered for run in group)}/{len(group)} | "
            f"[{np.mean([run.low for run in group]):.1%}, "
            f"{np.mean([run.high for run in group]):.1%}] | "
            f"{max(run.high for run in group):.1%} | {area} |"
        )
    return lines


def ranking(
    data: Path, model: str | None, cache: Path | None, seed: int, settings: dict[str, dict]
) -> list[str]:
    """Markdown: rank correlation of the headline ranking with what training gave.

    Args:
        data, cache, seed: as on the command line.
        model: embeds the headlines; TF-IDF without it.
        settings: by the name of a line, `real` (a draw of the real rows) and options of `compare`.
    """
    from rbpp.assessment.compare import compare

    folder = data / "synque_sentiment"
    with (folder / "task_performance.csv").open() as source:
        truth = {row["dataset_name"]: float(row["test_f1_mean"]) for row in csv.DictReader(source)}
    versions = {name: folder / "synthetic" / f"{name}.json" for name in truth}
    reached = np.array(list(truth.values()))
    random = np.random.default_rng(seed)
    lines = ["| | Spearman | 94 % over the sets | posterior, 94 % |", "|---|---|---|---|"]
    scores = []
    for name, options in settings.items():
        result = compare(
            versions,
            folder / "real" / f"balanced_real_seed={options['real']}.json",
            text_fields=["headline"],
            embedding_model=model,
            cache=cache,
            seed=seed,
            shares=False,
            dimension=options.get("dimension"),
        )
        score = result.idata["posterior"]["score"].transpose("version", ...)
        scores.append(score.sel(version=list(truth)).values.reshape(len(truth), -1))
        lines.append(correlation_line(name, scores[-1:], reached, random))
        print(lines[-1], file=sys.stderr, flush=True)
    if len(scores) > 1:
        lines.append(correlation_line(f"mean of the {len(scores)}", scores, reached, random))
    return lines


def correlation_line(
    name: str, scores: list[np.ndarray], reached: np.ndarray, random: np.random.Generator
) -> str:
    """A line of the ranking's table: the rank correlation, averaged over draws of real rows.

    Of the mean scores, with its bootstrap interval over the sets, which says how far 32 sets decide
    it; and its interval over posterior draws of the scores, which says how far the rows do. The
    latter lies lower: what blurs a score blurs its ranks.

    Args:
        scores: (set, posterior draw) for every draw of real rows.
        reached: F1 by set.
    """
    from scipy.stats import spearmanr

    def mean(columns: list[np.ndarray], index: np.ndarray) -> float:
        return float(np.mean([spearmanr(c[index], reached[index]).statistic for c in columns]))

    everyone = np.arange(len(reached))
    means = [score.mean(1) for score in scores]
    over_sets = [mean(means, random.choice(everyone, len(everyone))) for _ in range(1000)]
    draws = range(scores[0].shape[1])
    over_draws = [mean([score[:, draw] for score in scores], everyone) for draw in draws]
    low, high = np.quantile(over_sets, [0.03, 0.97])
    least, most = np.quantile(over_draws, [0.03, 0.97])
    return (
        f"| {name} | {mean(means, everyone):.3f} | [{low:.2f}, {high:.2f}] | "
        f"[{least:.2f}, {most:.2f}] |"
    )


def main() -> None:
    """Run the parts that are asked for and print their tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--parts", nargs="+", default=["planted", "uncovered", "left_out", "same"])
    parser.add_argument("--runs", type=int, default=40)
    parser.add_argument("--text", choices=FIELDS, default="instruction")
    parser.add_argument("--embedding-model")
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    data, (field, general_field) = arguments.data, FIELDS[arguments.text]

    if set(arguments.parts) - {"ranking", "sensitivity"}:
        code = texts(data / "code_alpaca_2k.json", field)
        code = list(dict.fromkeys(code + texts(data / "gpt4_codegen.json", field)))
        role_play = texts(data / "gpt4_roleplay.json", field)
        general = texts(data / "self_instruct_seed_tasks.jsonl", general_field)
        general += texts(data / "user_oriented_instructions.jsonl", general_field)
        foreign_rows = {
            "role-play": role_play,
            "general": [text for text in general if not CODE.search(text)],
            "general, code among them": general,
        }
    for part, name, foreign in (
        ("planted", "irrelevant", "role-play"),
        ("uncovered", "uncovered", "general"),
        ("uncovered_all", "uncovered", "general, code among them"),
        ("left_out", "irrelevant", "general"),
    ):
        if part not in arguments.parts:
            continue
        rows = foreign_rows[foreign]
        runs = []
        for index in range(arguments.runs):
            share = SHARES[index % len(SHARES)]
            size = SIZES[(index // len(SHARES) + index) % len(SIZES)]
            if share * size > len(rows):  # no more foreign rows than there are
                size = max(n for n in SIZES if share * n <= len(rows))
            run = planted(code, rows, share, size, arguments.seed + index, name)
            runs.append(run)
            print(run, file=sys.stderr, flush=True)
        print(f"\n## {name} share, {foreign} ({arguments.text})\n")
        print("\n".join(planted_table(runs)), flush=True)
    if "same" in arguments.parts:
        claims = []
        for index in range(arguments.runs):
            rows = (code, role_play, code, general)[index % 4]
            claim, above = same(rows, SIZES[index % len(SIZES)], arguments.seed + index)
            claims.append(claim)
            print(claim, above, file=sys.stderr, flush=True)
        print("\n## same distribution\n")
        print(f"Claims of a difference: {sum(claims)} of {len(claims)} runs.", flush=True)
    draws = {f"draw {draw}": {"real": draw} for draw in REAL_DRAWS}
    other = {
        f"{dimension} components": {"real": REAL_DRAWS[0], "dimension": dimension}
        for dimension in OTHER_DIMENSIONS
    }
    for part, settings in (("ranking", draws), ("sensitivity", other)):
        if part in arguments.parts:
            found = ranking(
                data, arguments.embedding_model, arguments.cache, arguments.seed, settings
            )
            model = arguments.embedding_model
            print(f"\n## {part} ({Path(model).name if model else 'TF-IDF'})\n")
            print("\n".join(found), flush=True)


if __name__ == "__main__":
    main()
