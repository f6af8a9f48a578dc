"""Options from the fields of a dataclass, and messages that name options."""

import argparse
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest

from rbpp import options, run_options, validate


@dataclass(frozen=True)
class Sizes:
    worlds: int = field(default=12, metadata={"help": "worlds, 50 % of them new"})
    burn_in: int = field(default=0, metadata={"help": "draws left out", "least": 0, "most": 9})
    resolution: float = field(
        default=0.01, metadata={"help": "per coordinate", "above": 0, "metavar": "Δ"}
    )
    components: int | None = field(default=None, metadata={"help": "chosen without it"})
    estimator: Literal["ksg", "mixture"] = field(default="ksg", metadata={"help": "which"})
    exact: bool = field(default=False, metadata={"help": "by enumeration"})
    paired: bool = field(default=True, metadata={"help": "rows belong together"})
    cache: Path | None = field(default=None, metadata={"help": "a folder", "option": "--cache-dir"})
    sub_gaussian: float | str = field(
        default=0.5, metadata={"help": "σ", "parse": lambda text: text, "metavar": "σ"}
    )
    inner: int = 3

    def __post_init__(self):
        if self.components is not None:
            validate.count("components", self.components, 2)


def parser():
    made = argparse.ArgumentParser(exit_on_error=False)
    options.add_fields_of(made, Sizes, "how much to draw")
    return made


def read(*arguments):
    return options.read_fields(parser().parse_args(arguments), Sizes)


def test_without_options_the_fields_have_their_defaults():
    assert read() == Sizes()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--worlds", "3"], Sizes(worlds=3)),
        (["--burn-in", "9"], Sizes(burn_in=9)),
        (["--resolution", "2.5"], Sizes(resolution=2.5)),
        (["--components", "4"], Sizes(components=4)),
        (["--estimator", "mixture"], Sizes(estimator="mixture")),
        (["--exact"], Sizes(exact=True)),
        (["--no-paired"], Sizes(paired=False)),
        (["--cache-dir", "x"], Sizes(cache=Path("x"))),
        (["--sub-gaussian", "estimate"], Sizes(sub_gaussian="estimate")),
    ],
)
def test_an_option_sets_its_field(arguments, expected):
    assert read(*arguments) == expected != Sizes()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--worlds", "0"], "Expected a whole number of 1 or more; got 0"),
        (["--worlds", "x"], "Expected a whole number of 1 or more; got 'x'"),
        (["--burn-in", "10"], "Expected a whole number of 0 to 9; got 10"),
        (["--resolution", "0"], "Expected a finite number above 0; got 0"),
        (["--resolution", "nan"], "finite number"),
        (["--estimator", "none"], "invalid choice"),
    ],
)
def test_a_value_that_does_not_fit_is_refused(arguments, message):
    with pytest.raises(argparse.ArgumentError, match=message) as refused:
        parser().parse_args(arguments)
    assert refused.value.argument_name == arguments[0]


def test_help_has_defaults_and_no_option_without_help():
    text = " ".join(parser().format_help().split())
    assert "how much to draw:" in text
    assert "worlds, 50 % of them new (12)" in text
    assert "--resolution Δ per coordinate (0.01)" in text
    assert "chosen without it" in text
    assert "None" not in text
    assert "--inner" not in text


def test_what_the_dataclass_refuses_names_the_option():
    with pytest.raises(ValueError) as refused:
        read("--components", "1")
    message = run_options.name_option(parser(), str(refused.value))
    assert message == "Expected --components to be a whole number of 2 or more; got 1"


@pytest.mark.parametrize(("engines", "taken"), [((), None), (("cavi", "svi"), "svi")])
@pytest.mark.parametrize("where", ["ray", "local"])
def test_a_place_as_engine_is_a_former_spelling_of_workers(engines, taken, where, capsys):
    made = argparse.ArgumentParser(prog="rbpp fit", exit_on_error=False)
    if engines:
        options.add_engine(made, engines, "which")
    options.add_workers(made)
    words = ["--engine", taken] if taken else []
    found = made.parse_args([*words, "--engine", where])
    assert found.workers == where
    assert getattr(found, "engine", None) == taken
    said = capsys.readouterr().err
    assert said == f"rbpp fit: note: --engine {where} is now --workers {where}\n"
    with pytest.raises(argparse.ArgumentError, match=r"expected one of .*; got nuts"):
        made.parse_args(["--engine", "nuts"])


def test_fields_need_a_default_and_a_type_that_an_option_has():
    @dataclass(frozen=True)
    class Bare:
        worlds: int = field(metadata={"help": "many"})

    @dataclass(frozen=True)
    class Odd:
        worlds: dict = field(default=(), metadata={"help": "many"})

    for kind, message in ((Bare, "Expected a default"), (Odd, "of a type that an option has")):
        with pytest.raises(TypeError, match=message):
            options.add_fields_of(argparse.ArgumentParser(), kind, "title")


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("Expected worlds to be a number; got x", "Expected --worlds to be a number; got x"),
        ("Expected worlds from 2 to 5; got 6", "Expected --worlds from 2 to 5; got 6"),
        ("Expected burn_in between 0 and 1; got 2", "Expected --burn-in between 0 and 1; got 2"),
        ("Expected process to be one of a; got b", "Expected PROCESS to be one of a; got b"),
        ("give burn_in=… of 5", "give --burn-in of 5"),
        (
            "name it with id=…, or model='a b'",
            "name it with --id-field, or --embedding-model 'a b'",
        ),
        ("result.ask('FILE') asks", "--ask FILE asks"),
        ("result.rows.to_parquet(…) writes", "--rows writes"),
        # A word, another argument's name, a file's option, and a message about a file:
        *[
            (same, same)
            for same in (
                "Expected worlds that differ; got one",
                "Expected knots to be distinct; got 2, 2",
                "Expected cache to be readable; got nothing",
                "a.npy: Expected worlds to be finite; got nan",
                "result.json: no file (seed=3, steps=…)",
            )
        ],
    ],
)
def test_messages_name_options_where_the_library_named_arguments(message, expected):
    made = parser()
    made.add_argument("process", metavar="PROCESS")
    for option in ("--id-field", "--embedding-model", "--ask"):
        made.add_argument(option)
    assert run_options.name_option(made, message) == expected
