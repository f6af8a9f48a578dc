"""How results leave rbpp: in the user's units, as a table or as JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any, Literal

from rbpp import wording
from rbpp.checks import VERDICTS, severity
from rbpp.inference_data import InferenceData, Term, replace_group, terms_group, terms_of
from rbpp.layout import Lines as Lines
from rbpp.layout import Part as Part
from rbpp.layout import Table as Table
from rbpp.layout import Terms as Terms
from rbpp.layout import align as align
from rbpp.layout import show as show
from rbpp.variables import GROUPS, VARIABLES

if TYPE_CHECKING:
    from rbpp.estimate import Side

Units = Literal["nats", "bits"]


@dataclass(frozen=True)
class View:
    """How a result is shown.

    Attributes:
        hdi_prob: probability of highest-density intervals.
        units: of information, nats or bits.
        per_row: information per row instead of per data set.
        rest_by: what shows the terms, notes and checks that are left out, such as an option of a
            command; empty where nothing is said of it.
    """

    hdi_prob: float = 0.94
    units: Units = "nats"
    per_row: bool = False
    rest_by: str = ""

    def hint(self, verb: str = "") -> str:
        """In brackets what shows the rest, and with which words; empty where nothing does.

        >>> View(rest_by="everything=True").hint("shows each")
        ' (everything=True shows each)'
        """
        return f" ({f'{self.rest_by} {verb}'.strip()})" if self.rest_by else ""


DEFAULT_VIEW = View()

_BEFORE: dict[Side, str] = {"lower": "≥", "upper": "≤"}
_COMPARED = {"left", "right", "slack", "slack_sd", "slack_mcse"}
_VERSIONED = ("torch", "pyro-ppl", "arviz", "xarray", "numpy")


def convert(
    data: InferenceData, units: Units = "nats", rows: Mapping[str, int] | None = None
) -> InferenceData:
    """A copy of `data` whose information is in `units`, and per row where `rows` is given.

    Only variables in nats change, their Monte Carlo errors with them; shares, distances and losses
    stay, and so does what already is per row (the KL gap, the information of paired rows).

    Args:
        data: InferenceData in nats and per data set, as everything in rbpp.
        units: nats, or bits (nats divided by log 2).
        rows: row count of the data sets `anchor` and `synthetic`, to divide by, or of a variable's
            own rows under its name.
    """
    terms = terms_of(data)
    converted = {}
    for name, term in terms.data_vars.items():
        if term.attrs.get("units") == "nats":
            scale, shown = scale_of(str(name), units, rows)
            converted[name] = (term * scale).assign_attrs({**term.attrs, "units": shown})
    return replace_group(data, terms_group(data), terms.assign(converted))


def convert_audit(
    audit: Sequence[Mapping[str, Any]], units: Units = "nats", rows: Mapping[str, int] | None = None
) -> list[dict[str, Any]]:
    """Audit entries in the units of the terms that they compare; see `convert`.

    An entry that `bounds` a variable in nats has both sides and the slack in nats.
    """
    converted = []
    for entry in audit:
        described = VARIABLES.get(str(entry.get("bounds")))
        if described is None or described.units != "nats":
            converted.append(dict(entry))
            continue
        scale, _ = scale_of(str(entry["bounds"]), units, rows)
        converted.append(
            {
                key: value * scale if key in _COMPARED and value is not None else value
                for key, value in entry.items()
            }
        )
    return converted


def scale_of(name: str, units: Units, rows: Mapping[str, int] | None) -> tuple[float, str]:
    """What `convert` multiplies a variable by, and its units then."""
    described = VARIABLES.get(name)
    if described is not None and described.units != "nats":
        return 1.0, described.units
    count = None
    if rows and described and described.rows:
        count = rows.get(name, rows.get(described.rows))
    factor = 1 / math.log(2) if units == "bits" else 1.0
    return factor / (count or 1), units if count is None else f"{units} per row"


def group_terms(
    table: Mapping[str, Term],
    view: View,
    units: Mapping[str, str],
    references: Mapping[str, float] | None = None,
    also: Collection[str] = (),
    one_sided: Mapping[str, Side] | None = None,
) -> Terms:
    """What matters of a table of terms, in groups.

    Args:
        table: NAME to its numbers.
        view: that the table was made with.
        units: of the variables.
        references: of a name, the same number for two halves of the task.
        also: names that matter besides those that always do.
        one_sided: of a variable that is known from one side alone, which: its number stands behind
            ≥ or ≤.
    """
    names = [
        name
        for name in table
        if (name in also or wording.is_main(name)) and not wording.is_side(name, table)
    ]
    references = references or {}
    parts: dict[str, list[list[str]]] = {title: [] for title in GROUPS}
    for name in names:
        base = wording.base_name(name)
        share, described = wording.is_share(base), VARIABLES.get(base)
        value, unit = wording.term_quantity(name, table), units.get(base, "1")
        if (one_sided or {}).get(base):
            value = f"{_BEFORE[(one_sided or {})[base]]} {value}"
        if unit != "1" and not share:
            value += f" {unit}"
        if table[name]["mcse"]:
            error = table[name]["mcse"] or 0.0
            value += f" ± {100 * error:.2g} %" if share else f" ± {error:.2g}"
        if name in references:
            value += f" [{wording.quantity(references[name], share=share)}]"
        parts[wording.group(name)].append([name, value, described.meaning if described else ""])
    known = any(wording.base_name(name) in VARIABLES for name in names)
    groups = {title if known else "": part for title, part in parts.items() if part}
    notes = [
        f"({100 * view.hdi_prob:g} % interval)",
        *(["± Monte Carlo error"] if any(table[name]["mcse"] for name in names) else []),
        *(["[two halves of the task]"] if set(references) & set(names) else []),
    ]
    sides = sum(wording.is_side(name, table) for name in table)
    return Terms(
        ["term", f"mean {notes[0]}", "meaning" if known else ""],
        groups,
        " ".join(["Behind a number:", *notes]) if notes[1:] else "",
        len(table) - len(names) - sides,
        view.hint("shows them"),
    )


def format_terms(table: Mapping[str, Term], hdi_prob: float, units: Mapping[str, str]) -> Table:
    """The terms of `rbpp.inference_data.term_table`, one a line.

    Args:
        table: NAME to its numbers.
        hdi_prob: the probability that the table was made with.
        units: NAME (without any label in brackets) to its units.
    """
    percent = f"{100 * hdi_prob:g} %"
    lines = [["term", "mean", "sd", f"{percent} low", f"{percent} high", "mcse", "units"]]
    for name, term in table.items():
        numbers = [term[key] for key in ("mean", "sd", "hdi_low", "hdi_high", "mcse")]
        unit = units.get(name.partition("[")[0], "")
        lines.append([name, *map(_short, numbers), "" if unit == "1" else unit])
    return Table(lines)


def violated_and_rest(audit: Sequence[Mapping[str, Any]], view: View = DEFAULT_VIEW) -> list[Part]:
    """The violated checks, and the others counted in one line."""
    violated = [entry for entry in audit if entry.get("verdict") == "violated"]
    counts = dict.fromkeys(VERDICTS, 0)
    for entry in audit:
        counts[entry["verdict"]] += 1
    told = {"violated": "violated", "undecided": "undecided", "unknown": "unknown", "holds": "hold"}
    rest = [f"{number} {told[key]}" for key, number in counts.items() if number]
    line = f"{wording.count(len(audit), 'check')}: {', '.join(rest)}"
    more = "" if len(violated) == len(audit) else view.hint("shows each")
    return [*([format_audit(violated)] if violated else []), Lines([f"{line}{more}."])]


def format_audit(audit: Sequence[Mapping[str, Any]]) -> Table:
    """Checks as JSON has them, a line each, the violated first.

    What was seen and what a check rests on stand below its line.
    """
    ordered = sorted(audit, key=lambda entry: severity(entry["verdict"]))
    head = [[_short(entry.get(key)) for key in ("statement", "verdict")] for entry in ordered]
    return Table([["check", "verdict"], *head], [_seen(entry) for entry in ordered], verdicts=1)


def _seen(entry: Mapping[str, Any]) -> list[str]:
    seen = [_compared(entry)] if "slack" in entry else []
    if not entry.get("required", True) and entry["verdict"] != "holds":
        seen.append("an assumption of some results only")
    if entry.get("message"):
        seen.append(" ".join(str(entry["message"]).split()))
    for one in entry.get("assumptions", ()):
        message = f" ({one['message']})" if one.get("message") else ""
        seen.append(f"{one['verdict']}: {one['statement']}{message}")
    return seen


def _compared(entry: Mapping[str, Any]) -> str:
    """Both sides of a bound and its slack, in the units that they were converted to."""
    left, right = entry.get("bounds", "left"), entry.get("by", "right")
    errors = {name: entry.get(f"slack_{name}") for name in ("sd", "mcse")}
    known = [f"{n} {_short(e)}" for n, e in errors.items() if e is not None and not math.isnan(e)]
    noise = f" ({', '.join(known)})" if known else ""
    return (
        f"{left} {_short(entry.get('left'))} ≤ {right} {_short(entry.get('right'))}, slack "
        f"{_short(entry['slack'])}{noise}, P(holds) {_short(entry.get('probability_holds'))}"
    )


def to_json(value: Any) -> str:
    """Strict JSON on one line: nan and infinities become null, arrays become lists.

    >>> to_json({"mean": float("nan"), "count": 3})
    '{"mean": null, "count": 3}'
    """
    return json.dumps(_plain(value), ensure_ascii=False, allow_nan=False)


def versions() -> dict[str, str]:
    """Versions of rbpp, Python and the libraries that the numbers depend on."""
    import platform

    import rbpp

    found = {"rbpp": rbpp.__version__, "python": platform.python_version()}
    for name in _VERSIONED:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    if hasattr(value, "tolist"):  # arrays, tensors and their scalars
        return _plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, str | int) else str(value)


def _short(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, float) and math.isnan(value):
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
