"""The learner that a name stands for, for one process."""

from __future__ import annotations

from pathlib import Path

from rbpp.processes.loading import find_model
from rbpp.processes.process import Process
from rbpp.theory.finite_learner import finite_learner
from rbpp.theory.guide_learner import guide_learner
from rbpp.theory.learners import Learner, mixture_learner, point_learner
from rbpp.theory.network_learner import network_learner
from rbpp.theory.settings import LEARNERS, LearnerChoice

_NOISE = 0.1


def choose_learner(
    choice: str | Learner | LearnerChoice, process: Process, rows: str = "synthetic"
) -> Learner:
    """The learner of a choice.

    "auto" is the conjugate mixture; for rows of one letter the most frequent letter, of several a
    network.

    Args:
        choice: a learner, its name, or its name with options.
        process: whose rows it learns from.
        rows: the site that they are of.

    Raises:
        ValueError: for an unknown name, for an option that this kind of learner does not have, and
            for rows that it cannot learn from.
    """
    if isinstance(choice, Learner):
        return choice
    choice = LearnerChoice(choice) if isinstance(choice, str) else choice
    name, noise = choice.name, _NOISE if choice.noise is None else choice.noise
    mixture = name == "mixture" or (name == "auto" and choice.components is not None)
    if choice.noise is not None and (mixture or name not in LEARNERS):
        kind = "a mixture" if mixture else name
        raise ValueError(f"Expected noise with a point, network or finite learner only; got {kind}")
    if choice.components is not None and not mixture:
        raise ValueError(f"Expected components with a mixture only; got the learner {name}")
    if mixture:
        return mixture_learner(choice.components)
    if name == "point":
        return point_learner(noise)
    if name not in ("auto", "finite", "network"):
        return _guide(name)
    plain = name == "auto" and choice.noise is None
    site = process.sites[rows if plain else "synthetic"]
    if plain and site.letters is None:
        if site.discrete:
            raise ValueError(
                f"Expected rows of site {rows!r} that are continuous or letters of finite number; "
                "got others: name a learner for them"
            )
        return mixture_learner()
    if site.letters is None:
        raise ValueError("Expected letters at site synthetic for a learner of letters; got numbers")
    of_several = site.coordinates > site.rows if name == "auto" else name == "network"
    return (network_learner if of_several else finite_learner)(site.letters, noise)


def _guide(reference: str) -> Learner:
    if ":" not in reference and not Path(reference).is_file():
        raise ValueError(
            f"Expected a learner of {', '.join(LEARNERS)}, or a Pyro guide as path.py:function or "
            f"module:function; got {reference!r}"
        )
    return guide_learner(find_model(reference)[1])
