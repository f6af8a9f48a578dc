"""The variables that rbpp reports: name, meaning, units and the paper's number, in one table.

The table is `variables.toml`, one variable a line; `describe` adds others. A variable NAME may come
with `NAME_lower` and `NAME_upper` (two sides of an estimate in nats) and with `NAME_mcse` (its
Monte Carlo standard error, one per posterior draw), a bound with `slack_NAME`.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from rbpp import validate

Units = Literal["nats", "loss", "1"]
Larger = Literal["better", "worse", "neither"]
Rows = Literal["anchor", "synthetic"]
Standing = Literal["", "estimate", "upper side"]
Part = Literal["", "slack", "lower", "upper", "mcse"]
Group = Literal["shares", "divergence", "information", "risk", "size and style"]
GROUPS: tuple[Group, ...] = get_args(Group)
Panel = Literal["information", "entropy", "rates", "none"]
_GROUP_OF: dict[str, Group] = {"nats": "information", "loss": "risk", "1": "size and style"}
_CHOICES: dict[str, tuple[Any, ...]] = {
    "units": get_args(Units),
    "larger_is": get_args(Larger),
    "rows": (*get_args(Rows), None),
    "stands_as": get_args(Standing),
    "group": ("", *GROUPS),
    "panel": ("", *get_args(Panel)),
    "part": get_args(Part),
}


@dataclass(frozen=True)
class Variable:
    """What a reported number means, and all that outputs need to know of it.

    Attributes:
        long_name: a phrase, with the paper's symbol.
        units: `"nats"`, `"loss"` (the units of the user's loss) or `"1"` (share, ratio, count).
        equation: the paper's number of the definition, lemma, theorem or section.
        larger_is: how a larger value speaks of synthetic data.
        rows: the data set that a quantity in nats is about, whose row count `--per-row` divides by;
            `None` where the quantity already is that of one row.
        stands_as: what the number is where its interval does not hold the quantity as often as it
            says (docs/measurements/coverage.md): `"estimate"`, or `"upper side"` of the quantity.
            Every output says so: `meaning` ends with it.
        group: of tables, one of `GROUPS`; by default information in nats, risk in units of the
            loss, size and style otherwise.
        panel: of the figure of a process's terms; by default `"none"` for a bound, entropy in nats,
            rates otherwise.
        least, most: the least and the largest value that there can be, in `units`: no interval over
            worlds reaches beyond.
        bound: whether it bounds another variable from above, so that there is a `slack_NAME`.
        main: whether tables show it where nobody asks for all (`--all`).
        part: what a companion of a variable is of it; empty for a variable itself.

    Raises:
        ValueError: for a field that has none of the values above, or limits without a value between
            them.
    """

    long_name: str
    units: Units
    equation: str
    larger_is: Larger = "neither"
    rows: Rows | None = None
    stands_as: Standing = ""
    group: Group | Literal[""] = ""
    panel: Panel | Literal[""] = ""
    least: float = -math.inf
    most: float = math.inf
    bound: bool = False
    main: bool = True
    part: Part = ""

    def __post_init__(self) -> None:
        for name, choices in _CHOICES.items():
            validate.choice(name, getattr(self, name), choices)
        for name in ("bound", "main"):
            if not isinstance(value := getattr(self, name), bool):
                raise ValueError(f"Expected {name} to be true or false; got {value!r}")
        if not self.least < self.most:
            raise ValueError(f"Expected least below most; got {self.least} and {self.most}")
        if not self.group:
            object.__setattr__(self, "group", _GROUP_OF[self.units])
        if not self.panel:
            panel = "none" if self.bound else "entropy" if self.units == "nats" else "rates"
            object.__setattr__(self, "panel", panel)

    @property
    def meaning(self) -> str:
        """The phrase, and what the number stands as: what outputs print."""
        return f"{self.long_name}; an {self.stands_as}" if self.stands_as else self.long_name

    @property
    def attrs(self) -> dict[str, str]:
        """The attributes that the variable carries in InferenceData."""
        attrs = {"long_name": self.meaning, "units": self.units, "equation": self.equation}
        return {**attrs, "stands_as": self.stands_as} if self.stands_as else attrs

    @property
    def is_share(self) -> bool:
        """Whether it is a part of a whole, or a total variation: what is told in percent."""
        return self.units == "1" and self.group in ("shares", "divergence")


VARIABLES: dict[str, Variable] = {}


def describe(name: str, variable: Variable) -> None:
    """Describe a variable, and the companions that it may come with.

    Args:
        name: of the variable.
        variable: what it means.
    """
    phrase = variable.long_name
    article = "" if phrase.startswith("the ") else "the "
    plain = replace(variable, bound=False, main=False, panel="none")
    described = {name: variable}
    if variable.bound:
        described[f"slack_{name}"] = replace(
            plain,
            long_name=f"slack of {article}{phrase}",
            larger_is="neither",
            least=-math.inf,
            most=math.inf,
            part="slack",
        )
    if variable.units == "nats":
        described[f"{name}_lower"], described[f"{name}_upper"] = (
            replace(
                plain, long_name=f"{variable.meaning}: {side} estimate", stands_as="", part=side
            )
            for side in _SIDES
        )
    for key, one in described.items():
        VARIABLES[key] = one
        VARIABLES[f"{key}_mcse"] = replace(
            plain,
            long_name=f"{one.meaning}: Monte Carlo standard error",
            larger_is="neither",
            stands_as="",
            least=0.0,
            most=math.inf,
            part="mcse",
        )


def require_described(names: Collection[str]) -> None:
    """Refuse terms that nothing describes: no table would show them.

    Raises:
        ValueError: naming them.
    """
    unknown = sorted(set(names) - set(VARIABLES))
    if unknown:
        raise ValueError(f"Expected terms that rbpp.variables describes; got {', '.join(unknown)}")


def read_table(text: str) -> dict[str, Variable]:
    """The variables of a table in TOML, a line each.

    Raises:
        ValueError: naming the variable and the field.
    """
    found = {}
    for name, fields in tomllib.loads(text).items():
        try:
            found[name] = Variable(**fields)
        except (TypeError, ValueError) as error:
            raise ValueError(f"Expected the fields of a variable in {name}; got {error}") from None
    return found


_SIDES: tuple[Literal["lower", "upper"], ...] = ("lower", "upper")
_TABLE = Path(__file__).with_name("variables.toml")
for _name, _variable in read_table(_TABLE.read_text(encoding="utf-8")).items():
    describe(_name, _variable)
