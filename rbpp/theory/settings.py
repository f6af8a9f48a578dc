"""What the bounds of a process are computed with: sizes, constants of the lemmas, the learner.

The fields are the options of `rbpp bounds`: defaults and help texts stand here alone. Nothing here
needs torch, so that help is fast.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field, fields
from typing import Any

from rbpp import validate

LEARNERS = ("auto", "mixture", "point", "finite", "network")


def _option(default: Any, text: str, **about: Any) -> Any:
    return field(default=default, metadata={"help": text, **about})


def _sigma(text: str) -> float | str:
    if text == "estimate":
        return text
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"expected a number above 0, or `estimate`; got {text!r}"
        ) from None


@dataclass(frozen=True, kw_only=True)
class SampleSizes:
    """How much is drawn; the error of a term falls with the root of the sizes it depends on.

    Attributes:
        worlds: draws of the world from the prior; each has terms and bounds of its own.
        replicates: data sets per world, that learners learn from.
        pairs: contrastive samples for I(e_p; M(p)), whose lower bound cannot exceed log(pairs).
        groups: outer samples: values of a prompt or factor that is held fixed.
        inner: inner samples: data sets for each of those values.
        worlds_at_once: worlds of one task, which are in memory together. Draws depend on it, and a
            mixture's number of components is chosen for each task.
    """

    worlds: int = _option(12, "worlds, drawn from the prior")
    replicates: int = _option(256, "data sets per world, for the learners", least=8)
    pairs: int = _option(128, "contrastive samples for I(e_p; M(p))", least=2)
    groups: int = _option(16, "outer samples: values of a prompt or factor held fixed", least=2)
    inner: int = _option(32, "inner samples: data sets for each of those values", least=4)
    worlds_at_once: int = _option(12, "worlds of a task and in memory; draws depend on it")

    def __post_init__(self) -> None:
        for one in fields(self):
            validate.count(one.name, getattr(self, one.name), one.metadata.get("least", 1))


@dataclass(frozen=True, kw_only=True)
class LemmaConstants:
    """Constants of the lemmas.

    Attributes:
        loss_bound: C; the learner's loss is scaled to [0, C].
        sub_gaussian: σ of Lemma 4.4; None is C/2, which is safe, and `"estimate"` takes it from
            losses, which may be too small.
        layers: ℓ, hidden layers that contract information.
        contraction: η of each layer, in (0, 1).
        resolution: Δ per coordinate, at which entropies of continuous variables are read.
    """

    loss_bound: float = _option(1.0, "range of the loss", metavar="C", above=0)
    sub_gaussian: float | str | None = _option(
        None, "a number, or `estimate` from losses; C/2 by default", metavar="σ", parse=_sigma
    )
    layers: int = _option(0, "hidden layers that contract information", metavar="ℓ", least=0)
    contraction: float = _option(0.5, "factor of each layer", metavar="η")
    resolution: float = _option(
        0.01, "per coordinate, for entropies of continuous variables", metavar="Δ", above=0
    )

    def __post_init__(self) -> None:
        validate.number("loss_bound", self.loss_bound, above=0)
        validate.count("layers", self.layers, 0)
        validate.probability("contraction", self.contraction)
        validate.number("resolution", self.resolution, above=0)
        if isinstance(self.sub_gaussian, str):
            if self.sub_gaussian != "estimate":
                raise ValueError(
                    f'Expected sub_gaussian to be a number or "estimate"; got {self.sub_gaussian!r}'
                )
        elif self.sub_gaussian is not None:
            validate.number("sub_gaussian", self.sub_gaussian, above=0)


@dataclass(frozen=True)
class LearnerChoice:
    """A learner by name; `rbpp.theory.learners` makes learners with further options.

    Attributes:
        name: `"auto"` (a mixture; finite for letters, a network for rows of several),
            `"mixture"`, `"point"`, `"finite"`, `"network"`, or a Pyro guide of the rows as
            `path.py:function` or `module:function`.
        components: K of a mixture; None chooses it on pilot data.
        noise: τ of a point or network learner, or the share of replaced letters of a finite one;
            None is 0.1.
    """

    name: str = _option(
        "auto",
        "auto (mixture; finite for letters, network for rows of several), mixture, point, finite, "
        "network, or a Pyro guide of the rows as path.py:function or module:function",
        option="--learner",
        metavar="L",
    )
    components: int | None = _option(
        None, "components of a mixture; chosen on pilot data by default", metavar="K"
    )
    noise: float | None = _option(
        None,
        "noise of a point or network learner, or share of replaced letters of a finite one; 0.1 "
        "by default",
        option="--learner-noise",
        metavar="τ",
    )
