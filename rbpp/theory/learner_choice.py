"""The learner that a name stands for, for one process."""

from __future__ import annotations

from pathlib import Path

from rbpp.processes.loading import find_model
from rbpp.processes.process import Process
from rbpp.processes.replicas import Replicas, Site
from rbpp.theory.finite_learner import finite_learner
from rbpp.theory.guide_learner import guide_learner
from rbpp.theory.learners import Learner, mixture_learner, point_learner
from rbpp.theory.network_learner import network_learner
from rbpp.theory.settings import LEARNERS, LearnerChoice

_NOISE = 0.1


def choose_learner(choice: str | Learner | LearnerChoice, process: Process) -> Learner | None:
    """The learner of a choice; None leaves it to the data (`default_learner`).

    Args:
        choice: a learner, its name, or its name with options.
        process: whose rows it learns from.

    Raises:
        ValueError: for an unknown name, and for an option that this kind of learner does not have.
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
    if name == "auto" and choice.noise is not None:
        return _of_letters(_letter_site(process), noise)
    if name in ("finite", "network"):
        letters = _letter_site(process).letters
        assert letters is not None
        return (finite_learner if name == "finite" else network_learner)(letters, noise)
    return None if name == "auto" else _guide(name)


def default_learner(replicas: Replicas, name: str) -> Learner:
    """The conjugate mixture; for rows of one letter the most frequent letter, of several a network.

    Args:
        replicas: the process.
        name: site of the rows.

    Raises:
        ValueError: for rows that are neither continuous nor letters of a known number.
    """
    site = replicas.sites[name]
    if site.letters is not None:
        return _of_letters(site, _NOISE)
    if site.discrete:
        raise ValueError(
            f"Expected rows of site {name!r} that are continuous or letters of finite number; got "
            "others: name a learner for them"
        )
    return mixture_learner()


def _letter_site(process: Process) -> Site:
    site = Replicas(process).sites["synthetic"]
    if site.letters is None:
        raise ValueError("Expected letters at site synthetic for a learner of letters; got numbers")
    return site


def _of_letters(site: Site, noise: float) -> Learner:
    """The most frequent letter where rows have one, else a network of the next letter."""
    assert site.letters is not None
    chosen = network_learner if site.coordinates > site.rows else finite_learner
    return chosen(site.letters, noise)


def _guide(reference: str) -> Learner:
    if ":" not in reference and not Path(reference).is_file():
        raise ValueError(
            f"Expected a learner of {', '.join(LEARNERS)}, or a Pyro guide as path.py:function or "
            f"module:function; got {reference!r}"
        )
    return guide_learner(find_model(reference)[1])
