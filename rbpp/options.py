"""Options of the command line: a table of those of several programs, those of the fields of a
dataclass, and the types of their values, which raise `argparse.ArgumentTypeError`: it is argparse
that names the option.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import MISSING, Field, dataclass, fields, replace
from functools import partial
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from rbpp import validate

if TYPE_CHECKING:
    from rbpp.compute import Compute

Fields = TypeVar("Fields")
Number = TypeVar("Number", int, float)


def output_file(text: str) -> Path:
    """The type of an option that names a file to write: it is checked before the work."""
    if not text or "\0" in text:
        raise argparse.ArgumentTypeError(f"Expected the name of a file; got {text!r}")
    return Path(text)


def parquet_file(text: str) -> Path:
    """The type of an option that names a Parquet file to write."""
    if not text.endswith(".parquet"):
        raise argparse.ArgumentTypeError(f"Expected a name that ends with .parquet; got {text!r}")
    return output_file(text)


FILES_TO_WRITE = (output_file, parquet_file)  # which `rbpp.outputs` checks before the work


def names(text: str) -> list[str]:
    """Names between commas.

    >>> names("id, split")
    ['id', 'split']
    """
    found = [name.strip() for name in text.split(",")]
    if not all(found):
        raise argparse.ArgumentTypeError(f"Expected names between commas; got {text!r}")
    return found


def _checked(
    check: Callable[..., Number], text: str, read: Callable[[str], Number], **limits: float
) -> Number:
    """A number of the command line; argparse says which option it is of."""
    try:
        # int() and float() also take what nobody means, as 1_0 and other alphabets' digits.
        value: Any = read(text) if text.isascii() and "_" not in text else text
    except ValueError:
        value = text
    try:
        return check("", value, **limits)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


seed = partial(_checked, validate.count, read=int, least=0, most=2**63 - 1)  # of a generator
positive_integer = partial(_checked, validate.count, read=int)
several = partial(_checked, validate.count, read=int, least=2)  # of what has a spread
whole_number = partial(_checked, validate.count, read=int, least=0)
positive_number = partial(_checked, validate.number, read=float, above=0)
probability = partial(_checked, validate.probability, read=float)


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
        raise argparse.ArgumentTypeError(f"Expected distinct values as 2..8 or 2,5,8; got {text}")
    return values


@dataclass(frozen=True)
class Option:
    """An option of several programs: its help, to which the default is added, and its values."""

    help: str
    metavar: str | None = None
    type: Callable[[str], Any] | None = None
    default: Any = None
    choices: Sequence[str] | None = None
    action: str | None = None
    required: bool | None = None


COMMON = {
    "--seed": Option("decides every random number", "N", seed, 0),
    "--device": Option("where to compute", default="auto", choices=("auto", "cpu", "cuda")),
    "--json": Option("one JSON object on standard output, nothing else", action="store_true"),
    "--output": Option("write InferenceData here", "FILE.nc", output_file),
    "--figures": Option("write the figures here, as PNG", "DIR", Path),
    "--config": Option(
        "take options from here, such as a run writes beside its results", "FILE.toml", Path
    ),
    "--all": Option("show every term, note and check", action="store_true"),
    "--quiet": Option("no table and no progress bar; warnings still show", action="store_true"),
    "--hdi-prob": Option("probability of the highest-density intervals", "P", probability, 0.94),
    "--traceback": Option("show where an error came from", action="store_true"),
    "--units": Option("of information", default="nats", choices=("nats", "bits")),
}
# What a run shows, and where it reads its options from, is no part of what is repeated.
SHOWING = {"json", "quiet", "traceback", "config", "all"}
OPTIONS = {
    **COMMON,
    # What is computed, and how long.
    "process": Option("name, path.py or module:attribute", "PROCESS"),
    "--set": Option("set a knob of the process; repeatable", "NAME=VALUE", action="append"),
    "--data": Option("rows of a site of the chain; repeatable", "SITE=FILE", action="append"),
    "--seconds": Option("limit of the inference", "S", positive_number, 60.0),
    "--accept": Option(
        "take draws that no diagnostic trusts, with a warning, instead of refusing",
        action="store_true",
    ),
    "--draws": Option("posterior draws per chain", "N", several, 1000),
    "--checkpoint": Option(
        "keep what is done here; the same command goes on from it, to the same numbers", "DIR", Path
    ),
    "--workers": Option(
        "this process, or the workers of a Ray cluster; the numbers are the same",
        default="local",
        choices=("local", "ray"),
    ),
    "--address": Option(
        "of the Ray cluster; without it RAY_ADDRESS, or one started on this machine", "A"
    ),
    # What is read of files of rows.
    "--text-field": Option(
        "a text field, a path a.0.b, alternatives a|b, or turns of chat records: messages, "
        "messages.user, messages.-1; several are joined in order",
        "F",
        action="append",
    ),
    "--embedding-field": Option("a field with a vector per row", "F"),
    "--columns": Option(
        "the columns of a table that are measurements", "A,B", names, action="extend"
    ),
    "--ignore": Option(
        "columns that are left out, such as an index, ids or a label", "A,B", names, action="extend"
    ),
    "--split": Option("which of several splits of a data set", "NAME"),
    "--standardise": Option(
        "columns of a table over their standard deviation; auto: where the largest is above ten "
        "times the smallest",
        default="auto",
        choices=("auto", "yes", "no"),
    ),
    "--id-field": Option("distinct ids (id, where there is one)", "F"),
    "--group-field": Option(
        "generated rows with equal values, as of one prompt, are not independent", "F"
    ),
    "--label-field": Option("a class of every row", "F"),
    "--embedding-model": Option(
        "of text: wordllama, tfidf, or a model2vec or sentence-transformers model (wordllama)",
        "PATH_OR_NAME",
    ),
    "--cache": Option("of embeddings (~/.cache/rbpp/embeddings)", "DIR", Path),
    "--dimension": Option("principal components; min(rows, 32)", "D", int),
    "--chunk-rows": Option("rows in memory (50000)", "N", positive_integer),
    "--sample-rows": Option("of each source (4000)", "N", positive_integer),
    # How the result is shown and kept.
    "--per-row": Option("information per row instead of per data set", action="store_true"),
    "--report": Option("write the report here, one HTML file", "FILE.html", output_file),
    "--markdown": Option(
        "write the report here, in Markdown for a pull request", "FILE.md", output_file
    ),
    "--card": Option(
        "write a block for a Hugging Face data card: what was measured, on what, how sure",
        "FILE.md",
        output_file,
    ),
}


def add(parser: argparse._ActionsContainer, *options: str, **changed: Any) -> None:
    """Add options of `OPTIONS`, by name; `changed` takes the place of what stands there."""
    for name in options:
        option = replace(OPTIONS[name], **changed)
        settings = {key: one for key, one in vars(option).items() if one is not None}
        if option.action in ("append", "extend"):
            settings["default"] = []
        if option.default is not None:
            shown = option.default
            settings["help"] += f" ({shown:g})" if isinstance(shown, float) else f" ({shown})"
        parser.add_argument(name, **settings)


def add_workers(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    """`--workers` and `--address`, for programs whose work splits; `open_compute` takes both."""
    group = parser.add_argument_group("where the work is done")
    add(group, "--workers", "--address")
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


def add_fields_of(
    parser: argparse.ArgumentParser, kind: type[Any], title: str
) -> argparse._ArgumentGroup:
    """An option for every field of a frozen dataclass, so that its default stands in one place.

    A field `worlds: int = 12` becomes `--worlds`, a whole number, 12 where it is absent. Types are
    `int`, `float`, `str`, `Path`, `bool`, `Literal` of words, and each of them or None. Of a
    field's `metadata` are taken:

        help: its help, to which the default is added;
        metavar: what stands for its value;
        option: the spelling, if it is not the field's name;
        least, most: of a whole number, 1 or more where nothing is said;
        above, least: of a number;
        parse: a function from text that takes the place of the type.

    A field without `help` gets no option.

    Args:
        parser: of the program.
        kind: the dataclass; all of its fields have defaults.
        title: of the group of options, which is returned.

    Raises:
        TypeError: if a field is of another type, or without a default.
    """
    group = parser.add_argument_group(title)
    hints = get_type_hints(kind)
    for one in _optional_fields(kind):
        if one.default is MISSING:
            raise TypeError(f"Expected a default for {kind.__name__}.{one.name}; got none")
        about = dict(one.metadata)
        name = about.get("option", f"--{one.name.replace('_', '-')}")
        default = "" if one.default is None or one.default is False else f" ({one.default})"
        settings = _taken(one.name, hints[one.name], about, one.default)
        if "metavar" in about:
            settings["metavar"] = about["metavar"]
        group.add_argument(
            name,
            dest=one.name,
            default=one.default,
            help=str(about["help"]).replace("%", "%%") + default,
            **settings,
        )
    return group


def read_fields(arguments: argparse.Namespace, kind: type[Fields]) -> Fields:
    """The dataclass whose options `add_fields_of` added, with what the user gave.

    Raises:
        ValueError: if the dataclass refuses a value.
    """
    return kind(**{one.name: getattr(arguments, one.name) for one in _optional_fields(kind)})


def _optional_fields(kind: type[Any]) -> list[Field[Any]]:
    return [one for one in fields(kind) if "help" in one.metadata]


def _taken(name: str, kind: Any, about: dict[str, Any], default: Any) -> dict[str, Any]:
    """How argparse takes values of a type, or of one that may also be None."""
    parts = [part for part in get_args(kind) if part is not NoneType]
    if NoneType in get_args(kind) and len(parts) == 1:
        kind = parts[0]
    limits = {key: about[key] for key in ("least", "most", "above") if key in about}
    if "parse" in about:
        return {"type": about["parse"], "metavar": name.upper()}
    if get_origin(kind) is Literal:
        return {"choices": list(get_args(kind))}
    if kind is bool:
        return {"action": argparse.BooleanOptionalAction if default else "store_true"}
    if kind is int:
        return {"type": partial(_checked, validate.count, read=int, **limits), "metavar": "N"}
    if kind is float:
        read = partial(_checked, validate.number, read=float, **limits)
        return {"type": read, "metavar": "X"}
    if kind in (str, Path):
        return {"type": kind, "metavar": name.upper()}
    raise TypeError(f"Expected {name} of a type that an option has; got {kind}")
