"""Options of the command line: those that every program has, and types for those of one.

Types raise `argparse.ArgumentTypeError`, which names the option for them.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rbpp.compute import Compute


def add_common(parser: argparse.ArgumentParser) -> None:
    """The options of every program."""
    common = parser.add_argument_group("options of every program")
    common.add_argument(
        "--seed", type=seed, default=0, metavar="N", help="decides every random number (0)"
    )
    common.add_argument(
        "--device", choices=["auto", "cpu", "cuda"], default="auto", help="where to compute (auto)"
    )
    common.add_argument(
        "--json", action="store_true", help="one JSON object on standard output, nothing else"
    )
    common.add_argument("--output", metavar="FILE.nc", type=Path, help="write InferenceData here")
    common.add_argument(
        "--figures", metavar="DIR", type=Path, help="write the figures here, as PNG"
    )
    common.add_argument(
        "--quiet", action="store_true", help="no table and no progress bar; warnings still show"
    )
    common.add_argument(
        "--hdi-prob",
        type=probability,
        default=0.94,
        metavar="P",
        help="probability of the highest-density intervals (0.94)",
    )
    common.add_argument(
        "--units", choices=["nats", "bits"], default="nats", help="of information (nats)"
    )


def add_per_row(parser: argparse.ArgumentParser) -> None:
    """`--per-row`; the program's Outcome must then have `rows`."""
    parser.add_argument(
        "--per-row", action="store_true", help="information per row instead of per data set"
    )


def add_process(parser: argparse.ArgumentParser) -> None:
    """PROCESS and `--set`; `rbpp.processes.process.load_process` takes both."""
    parser.add_argument("process", metavar="PROCESS", help="name, path.py or module:attribute")
    add_knobs(parser)


def add_knobs(parser: argparse.ArgumentParser) -> None:
    """`--set`; `rbpp.processes.loading.parse_settings` reads it."""
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="set a knob of the process; repeatable",
    )


def add_draws(parser: argparse._ActionsContainer, default: int = 1000) -> None:
    """`--draws`, per chain."""
    parser.add_argument(
        "--draws",
        type=positive_integer,
        default=default,
        metavar="N",
        help=f"posterior draws per chain ({default})",
    )


def add_workers(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    """`--workers` and `--address`, for programs whose work splits; `open_compute` takes both."""
    group = parser.add_argument_group("where the work is done")
    group.add_argument(
        "--workers",
        choices=["local", "ray"],
        default="local",
        help="this process, or the workers of a Ray cluster; the numbers are the same (local)",
    )
    group.add_argument(
        "--address",
        metavar="A",
        help="of the Ray cluster; without it RAY_ADDRESS, or one started on this machine",
    )
    if not any("--engine" in action.option_strings for action in parser._actions):
        group.add_argument(
            "--engine", action=_Engine, default=argparse.SUPPRESS, help=argparse.SUPPRESS
        )
    return group


def add_engine(parser: argparse._ActionsContainer, engines: Sequence[str], text: str) -> None:
    """`--engine`: which inference; before `add_workers`.

    Args:
        parser: of the program, or a group of it.
        engines: names, the default first.
        text: its help.
    """
    shown = "{" + ",".join(engines) + "}"
    parser.add_argument(
        "--engine",
        action=_Engine,
        engines=tuple(engines),
        default=engines[0],
        metavar=shown,
        help=f"{text} ({engines[0]})",
    )


class _Engine(argparse.Action):
    """`--engine ray` and `--engine local` are former spellings of `--workers`."""

    def __init__(self, *args: Any, engines: tuple[str, ...] = (), **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.engines = engines

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        if values in self.engines:
            setattr(namespace, self.dest, values)
        elif values in ("local", "ray"):
            note = f"{parser.prog}: note: --engine {values} is now --workers {values}"
            print(note, file=sys.stderr)
            namespace.workers = values
        else:
            known = ", ".join(self.engines) or "none (see --workers)"
            raise argparse.ArgumentError(self, f"expected one of {known}; got {values}")


@contextmanager
def open_compute(
    arguments: argparse.Namespace, work: Mapping[str, Any] | None = None
) -> Iterator[Compute]:
    """How the program is computed, by its options; a cluster that is started ends with the context.

    Args:
        arguments: with `seed`, `device` and `quiet`, and `workers`, `address` and `checkpoint`
            where the program has them.
        work: what the steps in a checkpoint depend on.

    Raises:
        ValueError: if an address is given without a cluster, or there is no cluster at it.
    """
    from rbpp.checkpoint import Checkpoint
    from rbpp.compute import Compute
    from rbpp.workers import open_workers

    where, address = getattr(arguments, "workers", "local"), getattr(arguments, "address", None)
    if address is not None and where != "ray":
        raise ValueError(f"--address: expected --workers ray with it; got {where}")
    gpus = int(arguments.device == "cuda")
    with open_workers(where, address, gpus_per_task=gpus) as workers:
        yield Compute(
            device=arguments.device,
            workers=workers,
            progress=not arguments.quiet,
            checkpoint=Checkpoint(getattr(arguments, "checkpoint", None), work),
            seed=arguments.seed,
        )


def add_checkpoint(parser: argparse._ActionsContainer) -> None:
    """`--checkpoint`: the folder of a `rbpp.checkpoint.Checkpoint`."""
    parser.add_argument(
        "--checkpoint",
        metavar="DIR",
        type=Path,
        help="keep what is done here; the same command goes on from it, to the same numbers",
    )


def resolve_device(requested: str) -> str:
    """`cuda` or `cpu`, where `auto` takes the first if there is one.

    Raises:
        ValueError: if `cuda` is requested and there is none.
    """
    if requested == "cpu":
        return "cpu"
    import torch

    if torch.cuda.is_available():
        return "cuda"
    if requested == "cuda":
        raise ValueError("Expected a CUDA device for --device cuda; got none on this machine")
    return "cpu"


def seed(text: str) -> int:
    """A whole number that a generator takes."""
    if not text.isdecimal() or int(text) >= 2**63:
        raise argparse.ArgumentTypeError(f"expected a whole number of 0 or more; got {text}")
    return int(text)


def positive_integer(text: str) -> int:
    """A count."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of 1 or more; got {text}")
    return int(text)


def whole_number(text: str) -> int:
    """A count that may be none."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"expected a whole number of 0 or more; got {text}")
    return int(text)


def positive_integers(text: str) -> list[int]:
    """One count or several, in order.

    >>> positive_integers("2..5"), positive_integers("8,2"), positive_integers("3")
    ([2, 3, 4, 5], [8, 2], [3])
    """
    first, dots, last = text.partition("..")
    if dots:
        values = list(range(positive_integer(first), positive_integer(last) + 1))
    else:
        values = [positive_integer(part) for part in text.split(",")]
    if not values or len(set(values)) < len(values):
        raise argparse.ArgumentTypeError(f"expected distinct values as 2..8 or 2,5,8; got {text}")
    return values


def positive_number(text: str) -> float:
    """A scale."""
    value = _number(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"expected a finite number above 0; got {text}")
    return value


def probability(text: str) -> float:
    """Between 0 and 1, both excluded."""
    value = _number(text)
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"expected a probability between 0 and 1; got {text}")
    return value


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
