"""What `channel_information` returns: terms, every output, and the units of both."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from rbpp import display, inference_data, wording
from rbpp.channel.log_probabilities import LogProbabilities
from rbpp.display import DEFAULT_VIEW, Part, Units, View
from rbpp.inference_data import InferenceData
from rbpp.result import Result
from rbpp.sentences import trust
from rbpp.variables import VARIABLES

if TYPE_CHECKING:
    import pandas as pd

# An output ignores its prompt where that makes it less than twice as probable as others do; it is
# determined where the prompt accounts for nine tenths of its information.
IGNORED_BELOW, DETERMINED_ABOVE = math.log(2), 0.9
# The set of all outputs, beside `kept` and `dropped`.
ALL = "all"


@dataclass(frozen=True, kw_only=True, repr=False)
class ChannelInformation(Result):
    """Posterior draws (1, draw) of the information in outputs, and what every output has.

    Attributes:
        data: the log-probabilities.
        prompt_information: (n, 2) log p(output | its prompt) / p(output) of every output, with the
            mean probability as on the lower and as on the upper side; nan without any contrast.
        refused: why I(p; M(p)) has its sides and no value; empty where it has one.
        per_token: information per token, whatever `per_row` says.
        token_draws: tokens of an output, by set of rows (draw,); empty where they are not known.
    """

    idata: InferenceData
    data: LogProbabilities
    prompt_information: Tensor
    refused: str
    per_token: bool = False
    token_draws: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def surprise(self) -> Tensor:
        """(n,) −log p(output | its prompt), nats."""
        return -self.data.own

    @cached_property
    def rows(self) -> pd.DataFrame:
        """Every output: `row` in the file, `prompt`, `tokens`, `surprise`, what its prompt says of
        it from both sides, whether it ignores its prompt or is determined by it, and `kept`."""
        import pandas as pd

        data = self.data
        names = data.prompt_names
        prompt = data.prompt.tolist()
        columns: dict[str, Any] = {
            "row": data.rows.numpy(),
            "prompt": prompt if names is None else [names[index] for index in prompt],
            "surprise": self.surprise.numpy(),
        }
        if data.output_names is not None:
            columns["output"] = list(data.output_names)
        if data.tokens is not None:
            columns["tokens"] = data.tokens.long().numpy()
        if not bool(self.prompt_information.isnan().any()):
            lower, upper = self.prompt_information.unbind(-1)
            columns |= {
                "prompt_information_lower": lower.numpy(),
                "prompt_information_upper": upper.numpy(),
                "ignores_prompt": ignores_prompt(upper).numpy(),
                "determined_by_prompt": determined_by_prompt(self.surprise, upper).numpy(),
            }
        if data.kept is not None:
            columns["kept"] = data.kept.numpy()
        return pd.DataFrame(columns)

    def write_rows(self, path: Path | str) -> None:
        """Write `rows` as Parquet, whole or not at all."""
        from rbpp.files import written_whole

        with written_whole(path) as aside:
            self.rows.to_parquet(aside, index=False)

    def figures(self, hdi_prob: float = 0.94) -> Mapping[str, Callable[[], Any]]:
        """The terms, and every output by its surprise and by what its prompt says of it."""
        from rbpp import plots

        names = [
            "information_gain",
            "information_prompt_output",
            "information_prompt_output_lower",
            "information_prompt_output_upper",
            "entropy_output",
        ]
        return {
            "channel": lambda: plots.plot_forest(self.idata, names, hdi_prob),
            "outputs": lambda: plots.plot_outputs(self.rows),
        }

    def in_units(self, units: Units = "nats", *, per_row: bool = False) -> InferenceData:
        """As every result's, and per token where `per_token` says so."""
        if not self.per_token:
            shown = super().in_units(units, per_row=per_row)
            assert shown is not None
            return shown
        shown = display.convert(self.idata, units, self.row_counts)
        terms = inference_data.terms_of(shown)
        changed = {}
        for name, term in terms.data_vars.items():
            described = VARIABLES.get(str(name))
            if described is not None and described.rows and described.units == "nats":
                tokens = self.token_draws[_set_of(str(name))].numpy()
                changed[name] = (term / tokens).assign_attrs(
                    {**term.attrs, "units": f"{units} per token"}
                )
        return inference_data.replace_group(shown, "posterior", terms.assign(changed))

    def answer(self, view: View = DEFAULT_VIEW) -> tuple[str, ...]:
        """What the numbers are per, and what an output and its prompt have."""
        per = "token" if self.per_token else "output" if view.per_row else "data set"
        data = self.data
        outputs = wording.count(len(data), "output")
        prompts = wording.count(len(torch.unique(data.prompt)), "prompt")
        heading = f"Information in {view.units} per {per}: {outputs} of {prompts}"
        if data.tokens is not None:
            heading += f", {wording.count(int(data.tokens.sum()), 'token')}"
        return (f"{heading}.", *self.sentences(view), trust(self.checks))

    def sentences(self, view: View = DEFAULT_VIEW) -> tuple[str, ...]:
        """What an output has, with its interval, in words.

        The information of a prompt reaches from the low end of its lower side to the high end of
        its upper one.
        """
        shown = display.convert(self.idata, view.units, self.row_counts)
        table = inference_data.term_table(shown, view.hdi_prob)
        gain = wording.term_quantity("information_gain", table)
        first = f"An output under its prompt (ΔI): {gain} {view.units}"
        if self.data.tokens is not None:
            factor = 1 / math.log(2) if view.units == "bits" else 1.0
            each = factor * float(self.surprise.sum() / self.data.tokens.sum())
            first += f", {each:.3g} a token"
        first += "."
        if bool(self.prompt_information.isnan().any()):
            return first, "Under no other prompt, nor without one: what prompts say is not known."
        told = wording.term_quantity("information_prompt_output", table)
        upper = self.prompt_information[:, 1]
        ignored = int(ignores_prompt(upper).sum())
        determined = int(determined_by_prompt(self.surprise, upper).sum())
        refused = f"I(p; M(p)) has its sides and no value: {self.refused}."
        return (
            first,
            f"Its prompt says {told} {view.units} of it.",
            *([refused] if self.refused else []),
            f"Of {len(self.data)} outputs {ignored} ignore their prompt; {determined} are all but "
            "determined by it, as copies are.",
        )

    def _body(self, view: View) -> list[Part]:
        """The terms that matter, the entropy of outputs among them."""
        table = self._table(view)
        named = self._units(view)
        return [display.group_terms(table, view, named, also=("entropy_output",))]


def ignores_prompt(information: Tensor) -> Tensor:
    """Whether an output's own prompt makes it less than twice as probable as others do."""
    return information < IGNORED_BELOW


def determined_by_prompt(surprise: Tensor, information: Tensor) -> Tensor:
    """Whether the prompt leaves less than a tenth of an output open, as that of a copy."""
    total = surprise + information
    share = torch.where(information.isinf(), 1.0, information / total)
    return (information >= IGNORED_BELOW) & (share >= DETERMINED_ABOVE)


def _set_of(name: str) -> str:
    return next((rows for rows in ("kept", "dropped") if f"_{rows}" in name), ALL)
