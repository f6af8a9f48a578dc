"""An assessment as one HTML file that needs nothing else: no network, no script, no other file.

It has a light and a dark face, fits a phone, and prints on two pages. Every text from the user's
data is escaped.
"""

from __future__ import annotations

import io
import math
import os
import re
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Any

import matplotlib
import pandas as pd
from matplotlib import pyplot
from matplotlib.axes import Axes

from rbpp import plots
from rbpp.display import versions
from rbpp.inference_data import term_table
from rbpp.sources.assessment import Assessment
from rbpp.sources.report_figures import plot_map

# What a reader acts on, in this order; the others follow in theirs.
_FIRST_TERMS = (
    "irrelevant_share",
    "uncovered_share",
    "novel_share",
    "total_divergence",
    "task_divergence",
    "generation_divergence",
    "kl_gap",
    "kl_gap_coverage",
    "information_gain",
    "ggmi",
    "generalization_error",
    "bound_synthetic_sharp",
    "effective_components",
)
_EXAMPLES = 5
_LONGEST_EXAMPLE = 240  # characters; the row table has the rest
# Drawn in a colour that stands nowhere else, then replaced by the page's ink.
_INK = "#010203"


def write_report(
    assessment: Assessment, path: str | os.PathLike[str], *, hdi_prob: float = 0.94
) -> None:
    """Write the report of an assessment; see `render`.

    Raises:
        OSError: if the file cannot be written.
        ValueError: if `hdi_prob` is not inside (0, 1).
    """
    Path(path).write_text(render(assessment, hdi_prob=hdi_prob), encoding="utf-8")


def render(assessment: Assessment, *, hdi_prob: float = 0.94) -> str:
    """The report as HTML.

    Args:
        assessment: what `rbpp.assess` returned.
        hdi_prob: probability of the intervals.
    """
    terms = term_table(assessment.data, hdi_prob)
    names = [name for name in _FIRST_TERMS if name in terms]
    sides = ("_lower", "_upper")  # in the JSON; the table has the value between them
    names += [name for name in terms if name not in names and not name.endswith(sides)]
    counts = assessment.settings.get("rows", {})
    subtitle = ", ".join(f"{count:,} {source}" for source, count in counts.items())
    style = Path(__file__).with_name("report.css").read_text(encoding="utf-8")
    sections = [
        f"<h1>Synthetic data, assessed</h1><p class='quiet'>Rows: {escape(subtitle)}</p>",
        _answers(assessment.answers),
        "<h2>Where the rows lie</h2>",
        _figure(
            plot_map(assessment.rows, assessment.components, assessment.axes),
            "Rows of each source and the components of their shared mixture (1.5 standard "
            "deviations), coloured by the part they belong to",
        ),
        "<p class='quiet'>Ellipses: components shared by task and synthetic data, unsampled (on "
        "the task, not in the anchors), irrelevant (off the task), uncovered (of the task, not in "
        "the synthetic data). The map is a projection; the numbers are not read off it.</p>",
        "<div class='columns'><section>",
        "<h2>Terms</h2>",
        _term_table(assessment.data, terms, names, hdi_prob),
        "</section><section>",
        "<h2>How sure</h2>",
        _figure(
            _forest(assessment.data, _shares(assessment.data, names), hdi_prob),
            f"Posterior mean and {hdi_prob:.0%} interval of the shares and distances",
        ),
        "</section></div>",
        "<div class='columns'><section>",
        _to_drop(assessment.rows),
        "</section><section>",
        _to_generate(assessment.components),
        "</section></div>",
        "<h2>Components</h2>",
        _component_table(assessment.components),
        "<h2>Audit</h2>",
        _audit(assessment.audit),
        "<div class='columns'><section>",
        "<h2>Sensitivity to the dimension</h2>",
        _sensitivity(assessment.sensitivity),
        "</section><section>",
        "<h2>Settings and versions</h2>",
        _settings({**assessment.settings, **versions()}),
        "</section></div>",
    ]
    return (
        "<!doctype html>\n<html lang='en'><head><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width, initial-scale=1'>"
        f"<title>Synthetic data, assessed</title><style>{style}</style></head><body>\n"
        + "\n".join(sections)
        + "\n</body></html>\n"
    )


def _answers(answers: Sequence[dict[str, Any]]) -> str:
    lines = []
    for answer in answers:
        chance = answer.get("probability")
        known = chance is not None and math.isfinite(chance)
        lines.append(
            f"<li><span class='chance {escape(answer['verdict'])}'>"
            f"{f'{chance:.0%}' if known else '–'}</span>"
            f"<span class='question'>{escape(answer['question'])}</span>"
            f"<span>{escape(answer['sentence'][:1].upper() + answer['sentence'][1:])}</span></li>"
        )
    note = "<p class='quiet'>The percentage is the probability that the sentence's claim holds.</p>"
    return f"<ul class='answers'>{''.join(lines)}</ul>{note}"


def _term_table(
    data: Any, terms: dict[str, dict[str, float | None]], names: Sequence[str], hdi_prob: float
) -> str:
    rows = []
    for name in names:
        attrs = data["posterior"][name.split("[")[0]].attrs
        units = attrs.get("units", "")
        term = terms[name]
        described = escape(str(attrs.get("long_name", name)))
        rows.append(
            [
                f"{described} <code class='wide'>{escape(name)}</code>",
                _number(term["mean"]),
                f"{_number(term['hdi_low'])} to {_number(term['hdi_high'])}",
                escape("" if units == "1" else str(units)),
            ]
        )
    return _table(["term", "mean", f"{hdi_prob:.0%} interval", "units"], rows, numbers=(1, 2))


def _shares(data: Any, names: Sequence[str]) -> list[str]:
    """Terms between 0 and 1, which one axis can show."""
    posterior = data["posterior"]
    return [
        name
        for name in names
        if name in posterior
        and posterior[name].attrs.get("units") == "1"
        and float(posterior[name].max()) <= 1
    ]


def _forest(data: Any, names: Sequence[str], hdi_prob: float) -> Axes:
    size = (4.8, 0.8 + 0.55 * len(names))
    axis = pyplot.subplots(figsize=size, layout="constrained")[1]
    return plots.plot_forest(data, names, hdi_prob, axis)


def _to_drop(rows: pd.DataFrame) -> str:
    synthetic = rows[rows["source"] == "synthetic"]
    off = synthetic[synthetic["off_task"] > 0.5].sort_values("off_task", ascending=False)
    # Redundancy is a log ratio of distances: beyond log 3, a row is a third as far as is typical.
    twice = synthetic[synthetic["redundancy"] > math.log(3)]
    twice = twice.sort_values("redundancy", ascending=False)
    return (
        "<h2>What to drop</h2>"
        f"<p>{len(off):,} of {len(synthetic):,} synthetic rows are more likely off the task than "
        "on it.</p>"
        + _examples(off, lambda line: f"off-task with probability {line.off_task:.2f}")
        + f"<h3>Said already</h3><p>{_count(len(twice), 'row')} nearly as another has it.</p>"
        + _examples(twice, lambda line: "repeats another row")
    )


def _to_generate(components: pd.DataFrame) -> str:
    missing = components[components["part"] == "uncovered"]
    share = "share_target" if "share_target" in components else "share_anchor"
    if missing.empty or share not in components:
        return (
            "<h2>What to generate next</h2><p>No component of the task is missing from the "
            "synthetic data.</p>"
        )
    missing = missing.sort_values(share, ascending=False)
    verb = "is" if len(missing) == 1 else "are"
    parts = [
        "<h2>What to generate next</h2>"
        f"<p>{_count(len(missing), 'component')} of the task {verb} hardly in the "
        "synthetic data. Real rows like these are missing from it:</p>"
    ]
    for number, line in missing.head(_EXAMPLES).iterrows():
        words = ", ".join(map(str, line["keywords"]))
        parts.append(
            f"<h3>Component {number}: {line[share]:.1%} of the task"
            f"{f' ({escape(words)})' if words else ''}</h3>"
        )
        parts += [_quote(str(text), "") for text in line["nearest"][:2]]
    return "".join(parts)


def _examples(rows: pd.DataFrame, say: Any) -> str:
    quotes = []
    for line in rows.head(_EXAMPLES).itertuples():
        text = line.text if isinstance(line.text, str) else f"row {line.id}"
        quotes.append(_quote(text, f"{line.id}: {say(line)}"))
    return "".join(quotes)


def _quote(text: str, note: str) -> str:
    short = " ".join(text.split())
    if len(short) > _LONGEST_EXAMPLE:
        short = short[: _LONGEST_EXAMPLE - 1] + "…"
    return f"<blockquote>{escape(short)}<span class='quiet'>{escape(note)}</span></blockquote>"


def _component_table(components: pd.DataFrame) -> str:
    sources = [name for name in components.columns if name.startswith("share_")]
    rows = []
    for number, line in components[components["part"] != "empty"].iterrows():
        described = ", ".join(map(str, line["keywords"])) or "; ".join(map(str, line["nearest"]))
        rows.append(
            [
                str(number),
                escape(str(line["part"])),
                *(f"{line[name]:.1%}" for name in sources),
                escape(described[:_LONGEST_EXAMPLE]),
            ]
        )
    header = ["", "part", *(name.removeprefix("share_") for name in sources), "what it is"]
    return _table(header, rows, numbers=range(2, 2 + len(sources)))


def _audit(audit: Iterable[dict[str, Any]]) -> str:
    words = {True: ("holds", "good"), False: ("violated", "bad"), None: ("cannot tell", "unclear")}
    rows = []
    for entry in audit:
        word, colour = words[entry.get("holds")]
        rows.append(
            [
                escape(str(entry["name"])),
                f"<span class='{colour}'>{word}</span>",
                escape(str(entry.get("message", ""))),
            ]
        )
    return _table(["statement", "verdict", "what was measured"], rows)


def _sensitivity(sensitivity: pd.DataFrame) -> str:
    rows = [
        [
            f"{int(line.dimension)}{' (chosen)' if line.chosen else ''}",
            f"{line.explained_variance:.0%}",
            f"{line.irrelevant_share:.3f} [{line.irrelevant_low:.3f}, {line.irrelevant_high:.3f}]",
            f"{line.total_divergence:.3f}",
        ]
        for line in sensitivity.itertuples()
    ]
    header = ["dimension", "variance", "irrelevant share", "total divergence"]
    return _table(header, rows, numbers=(1, 2, 3))


def _settings(settings: dict[str, Any]) -> str:
    rows = [[escape(str(name)), escape(_plain(value))] for name, value in settings.items()]
    return _table(["", ""], rows)


def _plain(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict):
        return ", ".join(f"{key} {_plain(own)}" for key, own in value.items())
    return str(value)


def _table(
    header: Sequence[str], rows: Iterable[Sequence[str]], numbers: Iterable[int] = ()
) -> str:
    """Cells are HTML already; columns in `numbers` are flush right, the last may break anywhere."""
    right = set(numbers)

    def line(cells: Sequence[str], tag: str) -> str:
        kinds = ["number" if place in right else "" for place in range(len(cells))]
        if not kinds[-1] and tag == "td":
            kinds[-1] = "text"
        return "".join(
            f"<{tag}{f' class={kind}' if kind else ''}>{cell}</{tag}>"
            for kind, cell in zip(kinds, cells, strict=True)
        )

    body = "".join(f"<tr>{line(cells, 'td')}</tr>" for cells in rows)
    head = f"<thead><tr>{line(header, 'th')}</tr></thead>" if any(header) else ""
    return f"<table>{head}<tbody>{body}</tbody></table>"


def _number(value: float | None) -> str:
    """Three digits, and none beyond the fourth decimal place: smaller is zero to a reader."""
    if value is None:
        return "–"
    return f"{round(value, 4):.3g}" if abs(value) < 1000 else f"{value:,.0f}"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _figure(axis: Axes, caption: str) -> str:
    """The axes' figure as inline SVG whose ink is that of the page."""
    figure = axis.get_figure(root=True)
    assert figure is not None
    for text in figure.findobj(matplotlib.text.Text):
        if text.get_color() in ("black", "k"):
            text.set_color(_INK)
    for own in figure.axes:
        own.tick_params(colors=_INK)
        for spine in own.spines.values():
            spine.set_edgecolor(_INK)
    buffer = io.StringIO()
    # A fixed salt and no date: the same assessment gives the same bytes.
    with matplotlib.rc_context({"svg.hashsalt": "rbpp", "svg.fonttype": "path"}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    pyplot.close(figure)
    drawing = buffer.getvalue()
    drawing = drawing[drawing.index("<svg") :].replace(_INK, "currentColor")
    # Sizes in points would keep the drawing from shrinking to a phone.
    drawing = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", drawing, count=1)
    drawing = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", drawing, count=1)
    label = escape(caption, quote=True)
    return f"<figure role='img' aria-label='{label}'>{drawing}</figure>"
