"""Rows that the user marks: which to ask for, the sheet to fill in, and what follows from it.

Twenty marks settle what no number of rows can: whether what looks foreign is. With the score z of
every row as covariate, P(row i is off the task) = 1 / (1 + exp(−a − b zᵢ)), with a and b on a grid.
The marked rows count as they are marked, and the others by their probability.
"""

from __future__ import annotations

import csv
import hashlib
import io
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rbpp import validate
from rbpp.assessment.weighted_rows import DRAWS, Array, Draws
from rbpp.files import written_whole

COLUMNS = ("row", "id", "text", "off_task", "digest")
ROWS = 20
# What the report supposes when it says how the answer moves if marks are wrong.
ONE_IN_TWENTY = 0.05
# Prior: the share at the median score is a few per cent to a half, and odds rise with the score.
_CENTRE, _CENTRE_SPREAD, _SLOPE_SPREAD = -1.5, 2.0, 2.0
# What may be answered in a terminal.
_ANSWERS = {"y": "1", "yes": "1", "1": "1", "n": "0", "no": "0", "0": "0", "s": "", "skip": ""}
_YES, _NO = {"1", "y", "yes", "true"}, {"0", "n", "no", "false"}
# Draws at once, so that a thousand draws of a million rows fit in memory.
_CHUNK = 50
# A spreadsheet would run a cell that begins with one of these.
_FORMULA = ("=", "+", "-", "@")


@dataclass(frozen=True)
class MarkedShare:
    """What marks say of the share off task.

    Attributes:
        draws: of the share of all rows (draw,).
        probability: of every row to be off the task (n,); 0 or 1 for marked rows.
        draws_if_wrong: of the share if one in twenty marks is wrong (draw,).
    """

    draws: Array
    probability: Array
    draws_if_wrong: Array

    @property
    def share(self) -> float:
        """The posterior mean of the share."""
        return float(self.draws.mean())

    @property
    def moved(self) -> float:
        """By how much the share moves if one in twenty marks is wrong."""
        return float(self.draws_if_wrong.mean() - self.draws.mean())


def rows_to_ask(score: np.ndarray, count: int = ROWS) -> NDArray[np.int64]:
    """Rows spread along the score, half of them in its top quarter, in the order of the rows.

    On the half for choosing of docs/measurements/scenarios.md, twenty such rows left an error of
    .031 and held in 99 % (width .16); twenty evenly along all of the score .041 and 92 % (.17).

    Args:
        score: z of every row (n,).
        count: of rows; all rows where there are fewer.

    Raises:
        ValueError: if a score is not finite, or count is not a whole number of 1 or more.

    >>> rows_to_ask(np.array([0.1, 3.0, 0.2, 2.0]), 2)
    array([1, 2])
    """
    count = min(validate.count("rows to ask", count), len(score))
    if not np.isfinite(score).all():
        raise ValueError("Expected finite scores of the rows to ask for; got nan or infinity")
    order = np.argsort(score, kind="stable")
    edge = int(0.75 * len(score))
    top = min(count // 2, len(score) - edge)
    edge = edge if top else len(score)
    below, above = np.arange(count - top) + 0.5, np.arange(top) + 0.5
    places = np.concatenate(
        [below * edge / (count - top), edge + above * (len(score) - edge) / max(top, 1)]
    ).astype(int)
    return np.sort(order[places]).astype(np.int64)


def rows_digest(texts: Sequence[str]) -> str:
    """Twelve hexadecimal digits of all rows in their order, which a sheet carries."""
    found = hashlib.blake2b(digest_size=6)
    for text in texts:
        data = text.encode("utf-8", "surrogatepass")
        found.update(len(data).to_bytes(8, "big") + data)
    return found.hexdigest()


def write_sheet(
    path: str | Path, rows: Sequence[int], texts: Sequence[str], ids: Sequence[str] | None = None
) -> None:
    """Write the rows to mark as CSV: row (counted from 0), id, text, off_task (empty), digest.

    Args:
        path: of the file, which is written whole or not at all.
        rows: indices of the rows to ask for.
        texts: of all rows; of rows without text, what stands for them.
        ids: of all rows, if they have some.

    Raises:
        ValueError: if a row is out of range.
        OSError: if the file cannot be written.
    """
    digest, lines = rows_digest(texts), []
    for row in rows:
        if not 0 <= row < len(texts):
            raise ValueError(f"Expected rows of 0 to {len(texts) - 1}; got {row}")
        name = "" if ids is None else str(ids[row])
        cells = (str(int(row)), _safe(name), _safe(texts[row]), "", digest)
        lines.append(dict(zip(COLUMNS, cells, strict=True)))
    Sheet(Path(path), COLUMNS, tuple(lines)).write()


def read_marks(
    path: str | Path, texts: Sequence[str], ids: Sequence[str] | None = None
) -> dict[int, bool]:
    """The marks of a filled sheet: row to whether it is off the task; blanks are skipped.

    Columns `row` and `off_task` must be there; text, id and digest are compared where they are.

    Raises:
        ValueError: in one line that names file and line, if the sheet is of other rows, a row is
            out of range or has another text or id, a value is not 0 or 1, or a row is marked both
            ways.
        OSError: if the file cannot be read.
    """
    name = Path(path).name
    digest = rows_digest(texts)
    marks: dict[int, bool] = {}
    for number, line in enumerate(Sheet.read(path).lines, 1):
        where = f"{name}, sheet row {number}"
        given = line.get("digest", "").strip()
        if given and given != digest:
            raise ValueError(
                f"{where}: Expected a sheet of these rows (digest {digest}); got one of {given}"
            )
        value = _value(line.get("off_task"), where)
        if value is None:
            continue
        row = _row(line.get("row"), len(texts), where)
        _compare("text", line.get("text"), texts[row], where, row)
        if ids is not None:
            _compare("id", line.get("id"), str(ids[row]), where, row)
        if marks.setdefault(row, value) != value:
            raise ValueError(f"{where}: Expected one mark of row {row}; got both 0 and 1")
    return marks


def share_from_marks(
    score: np.ndarray,
    marks: Mapping[int, bool],
    draws: Draws = DRAWS,
    weights: np.ndarray | None = None,
) -> MarkedShare:
    """Posterior of the share off task given marks, P(yᵢ = 1) = σ(a + b (zᵢ − m)).

    m is the 80 % point of the scores; a ~ N(−1.5, 2²), b ~ half-normal of 2 per standard deviation
    of the scores. The share is that of these rows: marked ones as marked, the others drawn.

    Args:
        score: z of every row (n,).
        marks: row to whether it is off the task, one or more.
        draws: of the share.
        weights: of the rows (n,), such as 1 / copies of each; 1 by default.

    Raises:
        ValueError: if there are no marks, one is out of range, or a score is not finite.
    """
    score = np.asarray(score, dtype=float)
    if not marks or not 0 <= min(marks) <= max(marks) < len(score):
        raise ValueError(f"Expected marks of rows 0 to {len(score) - 1}; got {sorted(marks)}")
    if not np.isfinite(score).all():
        raise ValueError("Expected finite scores of the marked rows; got nan or infinity")
    weights = np.ones(len(score)) if weights is None else np.asarray(weights, dtype=float)
    if weights.shape != score.shape or (weights <= 0).any():
        raise ValueError(f"Expected weights above 0 of {len(score)} rows; got {weights.shape}")
    random = np.random.default_rng([draws.seed, 4])
    shares, probability = _posterior(score, marks, 0.0, weights, draws.count, random)
    wrong, _ = _posterior(score, marks, ONE_IN_TWENTY, weights, draws.count, random)
    return MarkedShare(shares, probability, wrong)


def _posterior(
    score: Array,
    marks: Mapping[int, bool],
    wrong: float,
    weights: Array,
    num_samples: int,
    generator: np.random.Generator,
) -> tuple[Array, Array]:
    """Draws of the share and probabilities of rows, if this share of the marks is wrong."""
    covariate = (score - np.quantile(score, 0.8)) / max(float(score.std()), 1e-9)
    rows = np.array(sorted(marks))
    marked = np.array([marks[row] for row in rows], dtype=float)
    intercepts, slopes, log_joint = log_posterior_grid(covariate[rows], marked, wrong)
    joint = np.exp(log_joint - log_joint.max())
    joint /= joint.sum()
    cell = generator.choice(joint.size, num_samples, p=joint.ravel())
    first, second = np.unravel_index(cell, joint.shape)
    # Evenly within cells: draws of a grid would repeat its points.
    a = intercepts[first] + (generator.random(num_samples) - 0.5) * (intercepts[1] - intercepts[0])
    b = np.abs(slopes[second] + (generator.random(num_samples) - 0.5) * (slopes[1] - slopes[0]))
    draws, total = [], np.zeros(len(score))
    mass = weights / weights.sum()
    for first_draw in range(0, num_samples, _CHUNK):
        part = slice(first_draw, first_draw + _CHUNK)
        odds = _logistic(a[part, None] + b[part, None] * covariate)
        odds[:, rows] = _given(odds[:, rows], marked, wrong)
        total += odds.sum(0)
        draws.append((generator.random(odds.shape) < odds) @ mass)
    return np.concatenate(draws), total / num_samples


def log_posterior_grid(
    covariate: Array, marked: Array, wrong: float = 0.0
) -> tuple[Array, Array, Array]:
    """Log joint density of intercept and slope on a grid: (A,), (B,) and (A, B), not normalised.

    Args:
        covariate: of the marked rows (r,).
        marked: 0 or 1 (r,).
        wrong: share of the marks that are wrong either way.
    """
    intercepts, slopes = np.linspace(-9, 6, 76), np.linspace(0.05, 7.95, 80)
    odds = _logistic(intercepts[:, None, None] + slopes[:, None] * covariate)
    seen = (1 - wrong) * odds + wrong * (1 - odds)
    likelihood = np.where(marked > 0, np.log(seen + 1e-300), np.log1p(-seen + 1e-300)).sum(-1)
    prior = -0.5 * ((intercepts[:, None] - _CENTRE) / _CENTRE_SPREAD) ** 2
    return intercepts, slopes, likelihood + prior - 0.5 * (slopes / _SLOPE_SPREAD) ** 2


def _given(odds: Array, marked: Array, wrong: float) -> Array:
    """Probability that marked rows are off the task, of which some marks are wrong."""
    yes = odds * np.where(marked > 0, 1 - wrong, wrong)
    no = (1 - odds) * np.where(marked > 0, wrong, 1 - wrong)
    return np.asarray(yes / np.maximum(yes + no, 1e-300))


def _logistic(values: Array) -> Array:
    return np.asarray(1 / (1 + np.exp(-np.clip(values, -500, 500))))


def _value(cell: str | None, where: str) -> bool | None:
    """Whether a cell says off the task; None if it is blank."""
    found = (cell or "").strip().lower()
    if not found:
        return None
    if found in _YES | _NO:
        return found in _YES
    try:
        number = float(found)
    except ValueError:
        number = -1.0
    if number in (0.0, 1.0):
        return number == 1.0
    raise ValueError(f"{where}: Expected off_task 0 or 1, or blank; got {cell!r}")


def _row(cell: str | None, count: int, where: str) -> int:
    try:
        row = int((cell or "").strip())
    except ValueError:
        row = -1
    if not 0 <= row < count:
        raise ValueError(f"{where}: Expected a row of 0 to {count - 1}; got {cell!r}")
    return row


def _compare(what: str, cell: str | None, own: str, where: str, row: int) -> None:
    """Refuse a row whose text is another; spaces and line ends do not survive spreadsheets."""
    if cell is None or not cell.strip():
        return
    if " ".join(cell.lstrip("'").split()) != " ".join(own.lstrip("'").split()):
        raise ValueError(
            f"{where}: Expected the {what} of row {row}, {own[:40]!r}; got {cell[:40]!r}"
        )


def _safe(text: str) -> str:
    """A cell that no spreadsheet takes for a formula."""
    return f"'{text}" if text.startswith(_FORMULA) else text


@dataclass(frozen=True)
class Sheet:
    """A sheet of rows to mark, as `rbpp.assessment.marks.write_sheet` wrote it.

    Attributes:
        path: of the file.
        columns: in their order.
        lines: by column.
        delimiter: between cells.
    """

    path: Path
    columns: tuple[str, ...]
    lines: tuple[dict[str, str], ...]
    delimiter: str = ","

    @classmethod
    def read(cls, path: str | Path) -> Sheet:
        """The sheet in a file.

        Raises:
            ValueError: if the file is no such sheet.
            OSError: if it cannot be read.
        """
        name = Path(path).name
        try:
            content = Path(path).read_bytes().decode("utf-8-sig")
            # Where commas are decimal signs, spreadsheets write semicolons.
            delimiter = max(",;\t", key=content.split("\n", 1)[0].count)
            reader = csv.DictReader(io.StringIO(content, newline=""), delimiter=delimiter)
            lines = tuple({key: cell or "" for key, cell in line.items() if key} for line in reader)
        except (UnicodeDecodeError, csv.Error) as error:
            raise ValueError(f"{name}: Expected a CSV file in UTF-8; got {error}") from None
        columns = tuple(reader.fieldnames or ())
        if not lines or not {"row", "off_task"} <= set(columns):
            got = ", ".join(columns) if lines else "no rows"
            raise ValueError(f"{name}: Expected columns row and off_task; got {got}")
        return cls(Path(path), columns, lines, delimiter)

    @property
    def count(self) -> int:
        """Rows that are marked."""
        return sum(bool(line["off_task"].strip()) for line in self.lines)

    @property
    def off_task(self) -> int:
        """Rows that are marked as off the task."""
        return sum(line["off_task"].strip() == "1" for line in self.lines)

    def marked(self, place: int, value: str) -> Sheet:
        """The sheet with the mark of one line, written to its file."""
        lines = list(self.lines)
        lines[place] = {**lines[place], "off_task": value}
        sheet = replace(self, lines=tuple(lines))
        sheet.write()
        return sheet

    def write(self) -> None:
        """Write the file, whole or not at all."""
        out = io.StringIO(newline="")
        writer = csv.DictWriter(out, self.columns, delimiter=self.delimiter)
        writer.writeheader()
        writer.writerows(self.lines)
        with written_whole(self.path) as aside:
            # The mark of UTF-8 in front: spreadsheets read other files in the locale's encoding.
            aside.write_text(out.getvalue(), encoding="utf-8-sig", newline="")


def mark(sheet: Sheet, *, again: bool = False) -> Sheet:
    """Ask on the terminal for every row that has no mark, and write each answer at once.

    Args:
        sheet: to fill.
        again: ask also for rows that are marked.

    Returns:
        The sheet as far as it was filled.
    """
    asked = [i for i, line in enumerate(sheet.lines) if again or not line["off_task"].strip()]
    step = 0
    while step < len(asked):
        line = sheet.lines[asked[step]]
        shown = line.get("text") or line.get("id") or f"row {line['row']}"
        number = f"{step + 1} of {len(asked)}"
        try:
            answer = _asked(f"\n[{number}]\n{shown}\n\noff the task? y/n, s skip, b back, q stop: ")
        except EOFError:
            break
        answer = answer.strip().lower()
        if answer in ("q", "quit"):
            break
        if answer in ("b", "back"):
            step = max(0, step - 1)
        elif answer in _ANSWERS:
            if _ANSWERS[answer]:
                sheet = sheet.marked(asked[step], _ANSWERS[answer])
            step += 1
    return sheet


def _asked(question: str) -> str:
    """Ask on standard error: standard output is for the result."""
    print(question, end="", file=sys.stderr, flush=True)
    answer = sys.stdin.readline()
    if not answer:
        raise EOFError
    return answer
