from __future__ import annotations

import os
import sys
import textwrap

import numpy as np
import pytest

from rbpp.processes.loading import builtin_names, models_folder, parse_settings, resolve_knobs
from rbpp.processes.process import load_process

SHIPPED = {
    "gaussian_mixture",
    "linear_gaussian",
    "finite_alphabet",
    "invertible_prompt",
    "curation",
}

OWN = """
    import pyro
    import pyro.distributions as dist
    import torch

    def model(rows: int = 4, scale: float = 1.0, label="a", fast=False, sizes=(1, 2)):
        centre = pyro.sample("centre", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        with pyro.plate("anchors", 3):
            anchor = pyro.sample("anchor", dist.Normal(centre, 1.0).to_event(1))
        prompt = pyro.deterministic("prompt", anchor)
        with pyro.plate("outputs", rows):
            answer = prompt.mean(-2, keepdim=True)
            output = pyro.sample("output", dist.Normal(answer, scale).to_event(1))
            pyro.sample("synthetic", dist.Normal(output, 0.1).to_event(1))

    def second():
        return model(rows=9)

    def needs(rows):
        pass

    def takes_all(**knobs):
        pass

    constant = 3
"""


@pytest.fixture
def own_file(tmp_path):
    path = tmp_path / "my_process.py"
    path.write_text(textwrap.dedent(OWN))
    return path


def test_builtins_are_files_like_any_other():
    assert set(builtin_names()) >= SHIPPED
    for name in sorted(SHIPPED):
        by_name = load_process(name)
        by_path = load_process(models_folder() / f"{name}.py")
        assert by_name.knobs == by_path.knobs
        assert list(by_name.sites) == list(by_path.sites)


def test_path_and_attribute(own_file):
    process = load_process(own_file, rows=5)
    assert (process.name, process.sites["output"].shape) == ("my_process", (5, 2))
    assert load_process(f"{own_file}:second").sites["output"].shape == (9, 2)
    assert load_process(f"{own_file}:second").name == "second"


def test_edited_file_is_read_again(own_file):
    assert load_process(own_file).knobs["rows"] == 4
    own_file.write_text(textwrap.dedent(OWN).replace("rows: int = 4", "rows: int = 6"))
    assert load_process(own_file).knobs["rows"] == 6


def test_module_attribute(own_file, monkeypatch):
    monkeypatch.syspath_prepend(str(own_file.parent))
    assert load_process("my_process:model").knobs["label"] == "a"


def test_callable_and_process():
    def model(rows: int = 3):
        raise AssertionError("not run by loading")

    process = load_process(model)
    assert (process.name, process.knobs) == ("model", {"rows": 3})
    assert load_process(process, rows="7").knobs == {"rows": 7}


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("gausian_mixture", "did you mean gaussian_mixture"),
        ("no_such_thing", "one of .*linear_gaussian.*a path to a .py file"),
        ("missing.py", "missing.py, which does not exist"),
        ("no.such.module:model", "importable module"),
        ("os:path", r"functions there: (\w+, ){8}…; name one as os:FUNCTION"),
        ("{own}:third", "functions there: model, second"),
        ("{own}:constant", "callable named 'constant'"),
        ("{own}:needs", "'rows' without"),
        ("{own}:takes_all", "named knobs only"),
    ],
)
def test_what_cannot_be_loaded_is_named(reference, message, own_file):
    with pytest.raises(ValueError, match=message):
        load_process(reference.replace("{own}", str(own_file)))


def test_a_file_without_its_ending_is_hinted_at(tmp_path, monkeypatch):
    (tmp_path / "of_mine.py").write_text("def model(): ...\n")
    monkeypatch.chdir(tmp_path)
    # `python -m pytest` looks for modules in the folder it stands in, and other tests may too.
    monkeypatch.setattr("sys.path", [place for place in sys.path if os.path.isabs(place)])
    with pytest.raises(ValueError, match=r"importable module.*named with its ending, of_mine\.py"):
        load_process("of_mine:model")


def test_letters_of_the_paper_are_knobs():
    knobs = load_process("gaussian_mixture", K=3, J="4", L=0).knobs
    named = ("anchor_components", "unsampled_components", "irrelevant_components")
    assert [knobs[name] for name in named] == [3, 4, 0]
    with pytest.raises(ValueError, match="knob unsampled_components once"):
        load_process("gaussian_mixture", J=3, unsampled_components=4)
    with pytest.raises(ValueError, match=r"one of the knobs .*got 'K'"):
        load_process("linear_gaussian", K=3)


def test_a_knob_of_that_letter_comes_first():
    def model(K: int = 1, anchor_components: int = 2):
        return K

    assert load_process(model, K=5).knobs == {"K": 5, "anchor_components": 2}


def test_file_with_a_syntax_error(tmp_path):
    path = tmp_path / "cut.py"
    path.write_text("def model(:\n")
    with pytest.raises(ValueError, match=r"Expected Python in .*cut\.py"):
        load_process(path)


@pytest.mark.parametrize(
    ("text", "error"),
    [("1 / 0\n", "ZeroDivisionError"), ("raise SystemExit(3)\n", "SystemExit: 3")],
)
def test_file_that_stops(tmp_path, text, error):
    path = tmp_path / "stops.py"
    path.write_text(text)
    with pytest.raises(ValueError, match=rf"stops\.py to load; got {error}"):
        load_process(path)


def test_missing_import_of_the_file_is_named(tmp_path):
    path = tmp_path / "imports.py"
    path.write_text("import module_that_is_not_there\n")
    with pytest.raises(ModuleNotFoundError, match="module_that_is_not_there"):
        load_process(path)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"rows": "12"}, ("rows", 12)),
        ({"rows": 12.0}, ("rows", 12)),
        ({"rows": np.int64(12)}, ("rows", 12)),
        ({"scale": "1e-2"}, ("scale", 0.01)),
        ({"scale": 2}, ("scale", 2.0)),
        ({"label": "12"}, ("label", "12")),
        ({"fast": "true"}, ("fast", True)),
        ({"fast": "0"}, ("fast", False)),
        ({"sizes": "[3, 4]"}, ("sizes", (3, 4))),
    ],
)
def test_knobs_take_the_type_of_their_default(given, expected, own_file):
    name, value = expected
    knob = load_process(own_file, **given).knobs[name]
    assert (knob, type(knob)) == (value, type(value))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"row": 3}, "got 'row'; did you mean rows"),
        ({"zzz": 3}, "one of the knobs rows, scale, label, fast, sizes; got 'zzz'$"),
        ({"rows": "many"}, "knob rows of type int .*got 'many'"),
        ({"rows": 1.5}, "knob rows of type int"),
        ({"rows": True}, "knob rows of type int"),
        ({"scale": "nan"}, "finite number for knob scale"),
        ({"scale": float("inf")}, "finite number for knob scale"),
        ({"fast": "perhaps"}, "knob fast of type bool"),
        ({"sizes": "1, 2)"}, "knob sizes of type tuple"),
        ({"label": 3}, "knob label of type str"),
    ],
)
def test_wrong_knobs_are_named(given, message, own_file):
    with pytest.raises(ValueError, match=message):
        load_process(own_file, **given)


def test_knob_without_type_is_parsed_where_it_can_be():
    assert resolve_knobs({"limit": None}, {"limit": "3"}) == {"limit": 3}
    assert resolve_knobs({"limit": None}, {"limit": "all"}) == {"limit": "all"}


@pytest.mark.parametrize("setting", ["rows", "=3", ""])
def test_settings_are_name_and_value(setting):
    with pytest.raises(ValueError, match="Expected set='NAME=VALUE'"):
        parse_settings([setting])


def test_setting_twice_is_refused():
    with pytest.raises(ValueError, match="set='rows' once"):
        parse_settings(["rows=3", "rows=4"])
