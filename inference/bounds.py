"""Every term and bound of a process, each bound audited beside what it bounds.

PROCESS is a shipped process, a path to a file with a Pyro model, or module:attribute. Worlds are
the posterior draws: all else is conditional on the world. Every term has its Monte Carlo error
beside it, every information its two sides, every statement its assumptions with what was measured.

A violated statement is named and kept: the exit status is 0 whatever holds.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rbpp import command, options

if TYPE_CHECKING:
    from rbpp.processes.process import Process
    from rbpp.theory.chain import Chain
    from rbpp.theory.learners import Learner

# As many as there are by default: one batch, so that what is known of small runs stays as it was.
WORLDS_AT_ONCE = 12
LEARNERS = ("auto", "mixture", "point", "finite")
_NOISE = 0.1


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of this program."""
    options.add_process(parser)
    size = parser.add_argument_group("how much to draw")
    size.add_argument("--worlds", type=int, default=12, help="worlds, the posterior draws (12)")
    size.add_argument(
        "--replicates", type=int, default=256, help="data sets per world for the learners (256)"
    )
    size.add_argument(
        "--pairs", type=int, default=128, help="data sets in the sandwich of I(e_p; M(p)) (128)"
    )
    size.add_argument(
        "--groups", type=int, default=16, help="settings of a prompt or factor held fixed (16)"
    )
    size.add_argument("--inner", type=int, default=32, help="data sets for each of them (32)")
    constants = parser.add_argument_group("constants of the lemmas")
    constants.add_argument(
        "--loss-bound", type=float, default=1.0, metavar="C", help="range of the loss (1)"
    )
    constants.add_argument(
        "--sub-gaussian",
        type=_sigma,
        default=None,
        metavar="σ",
        help="a number, or `estimate` from losses; C/2 by default",
    )
    constants.add_argument("--layers", type=int, default=0, metavar="ℓ", help="hidden layers (0)")
    constants.add_argument(
        "--contraction", type=float, default=0.5, metavar="η", help="factor of each layer (0.5)"
    )
    constants.add_argument(
        "--resolution",
        type=float,
        default=0.01,
        metavar="Δ",
        help="per coordinate, for entropies of continuous variables (0.01)",
    )
    learner = parser.add_argument_group("the learner of W")
    learner.add_argument(
        "--learner",
        default="auto",
        metavar="L",
        help="auto (mixture, or finite for letters), mixture, point, finite, or a Pyro guide of "
        "the rows as path.py:function or module:function",
    )
    learner.add_argument(
        "--components",
        type=int,
        metavar="K",
        help="of the mixture of W; chosen on pilot data by default",
    )
    learner.add_argument(
        "--anchor-components", type=int, metavar="K", help="of the mixture of W'; --components"
    )
    learner.add_argument(
        "--learner-noise",
        type=float,
        metavar="τ",
        help="noise of a point learner, or share of replaced letters of a finite one (0.1)",
    )
    work = options.add_workers(parser)
    options.add_checkpoint(work)
    work.add_argument(
        "--worlds-at-once",
        type=options.positive_integer,
        default=WORLDS_AT_ONCE,
        metavar="N",
        help=f"worlds of a task and in memory; draws depend on it ({WORLDS_AT_ONCE})",
    )
    options.add_per_row(parser)


def run(arguments: argparse.Namespace) -> command.Outcome:
    """Terms, bounds, audit and figures of one process."""
    from rbpp.processes.contract import require
    from rbpp.processes.loading import parse_settings
    from rbpp.processes.process import load_process
    from rbpp.theory import bound_figures
    from rbpp.theory.statements import audit_chain, to_inference_data

    process = load_process(arguments.process, **parse_settings(arguments.set))
    findings = require(process, seed=arguments.seed)
    chain = _chain(arguments, process)
    data = to_inference_data(chain)
    audit = audit_chain(chain, findings.checks)
    extra = {"estimators": chain.estimators, "missing": chain.missing, "notes": chain.notes}
    return command.Outcome(
        data=data,
        audit=audit,
        settings={**chain.settings, "process": process.name, "knobs": process.knobs},
        figures={
            "terms": lambda: bound_figures.plot_terms(data, arguments.hdi_prob),
            "bounds": lambda: bound_figures.plot_bounds(data, arguments.hdi_prob),
        },
        extra=extra,
        notes=chain_notes(chain),
        rows=chain.rows,
    )


_SIZES = ("worlds", "worlds_at_once", "replicates", "pairs", "groups", "inner", "seed")
_CONSTANTS = ("loss_bound", "sub_gaussian", "layers", "contraction", "resolution")


def _chain(arguments: argparse.Namespace, process: Process) -> Chain:
    """The terms, by whoever works on the batches of worlds."""
    from rbpp.theory.chain import chain_terms

    measured = (*_SIZES, "loss_bound", "resolution", "components", "anchor_components")
    work = {
        "process": process.source,
        "code": _digest(process.source),
        "knobs": process.knobs,
        **{name: getattr(arguments, name) for name in (*measured, "learner")},
        "learner_noise": _noise(arguments),
    }
    with options.open_compute(arguments, work) as compute:
        return chain_terms(
            process,
            learner=_learner(arguments, arguments.components),
            anchor_learner=_learner(arguments, arguments.anchor_components or arguments.components),
            **{name: getattr(arguments, name) for name in (*_SIZES, *_CONSTANTS)},
            device=arguments.device,
            mapper=compute.workers,
            checkpoint=compute.checkpoint,
            quiet=arguments.quiet,
        )


def _digest(source: str) -> str | None:
    """Of the file of a process: another version of it is other work."""
    path = Path(source)
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None


def chain_notes(chain: Chain) -> str:
    """What a table of numbers cannot say of its terms, one a line: no such term, what stands for
    one, sides that are far apart or cut."""
    lines = {name: f"missing: {reason}" for name, reason in chain.missing.items()}
    lines |= chain.notes
    for name, how in chain.estimators.items():
        if "saturated" in how or "too far apart" in how:
            lines[name] = f"{lines[name]}; {how}" if name in lines else how
    return "\n".join(f"{name}: {line}" for name, line in lines.items())


def _learner(arguments: argparse.Namespace, components: int | None) -> Learner | None:
    from rbpp.theory.finite_learner import finite_learner
    from rbpp.theory.learners import mixture_learner, point_learner

    name = arguments.learner
    noisy = arguments.learner_noise is not None
    mixture = name == "mixture" or (name == "auto" and components is not None)
    if noisy and (mixture or name not in LEARNERS):
        kind = "a mixture" if mixture else name
        raise ValueError(f"--learner-noise: only point and finite learners have it; got {kind}")
    if mixture:
        return mixture_learner(components)
    if components is not None:
        raise ValueError(f"--components: only a mixture has them; got --learner {name}")
    if name == "point":
        return point_learner(_noise(arguments))
    if name == "finite" or (name == "auto" and noisy):
        return _finite(arguments, finite_learner)
    return None if name == "auto" else _guide(name)


def _noise(arguments: argparse.Namespace) -> float:
    return _NOISE if arguments.learner_noise is None else float(arguments.learner_noise)


def _finite(arguments: argparse.Namespace, make: Any) -> Learner:
    from rbpp.processes.loading import parse_settings
    from rbpp.processes.process import load_process
    from rbpp.processes.replicas import Replicas

    process = load_process(arguments.process, **parse_settings(arguments.set))
    letters = Replicas(process).sites["synthetic"].letters
    if letters is None:
        wanted = "--learner finite" if arguments.learner == "finite" else "--learner-noise"
        raise ValueError(f"{wanted}: expected letters at site synthetic; got numbers")
    learner: Learner = make(letters, _noise(arguments))
    return learner


def _guide(reference: str) -> Learner:
    from rbpp.processes.loading import find_model
    from rbpp.theory.guide_learner import guide_learner

    if ":" not in reference and not Path(reference).is_file():
        raise ValueError(
            f"--learner: expected one of {', '.join(LEARNERS)}, or a Pyro guide as "
            f"path.py:function or module:function; got {reference!r}"
        )
    return guide_learner(find_model(reference)[1])


def _sigma(text: str) -> float | str:
    if text == "estimate":
        return text
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"expected a number above 0, or `estimate`; got {text!r}"
        ) from None


if __name__ == "__main__":
    sys.exit(command.main([Path(__file__).stem, *sys.argv[1:]]))
