"""The command line: what all programs share, on small programs; then every shipped program."""

import inspect
import io
import itertools
import json
import math
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest

import rbpp
from rbpp import command, options
from rbpp.checks import Check
from rbpp.display import align, convert_audit, format_audit, show, to_json
from rbpp.inference_data import read

PROGRAM = '''
"""A small program.

Its second paragraph.
"""
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from rbpp import command, inference_data, options, validate
from rbpp.checks import Check
from rbpp.result import Result


def configure(parser):
    parser.add_argument("--fail", default="")
    parser.add_argument("--posterior-draws", dest="draws", type=int, default=500)
    options.add(parser, "--per-row")


def draw():
    figure = Figure()
    figure.add_subplot().plot([0, 1])
    return figure


@dataclass(frozen=True, kw_only=True, repr=False)
class Small(Result):
    body: str = ""

    def figures(self, hdi_prob=0.94):
        return {"one": draw, "two": lambda: draw().axes[0]}

    def details(self):
        return {"ranking": [{"name": "a", "score": np.array([1.0, np.inf])}]}

    def _body(self, view):
        own = super()._body(view)
        return [self.body] if self.body else own


def run(arguments):
    errors = {
        "value": ValueError("data.csv, row 3:\\nExpected a number; got x"),
        "file": FileNotFoundError(2, "No such file or directory", "absent.npy"),
        "extra": ImportError("Expected ray; install it with: pip install '.[ray]'"),
        "interrupt": KeyboardInterrupt(),
        "bug": RuntimeError("a defect"),
        "memory": MemoryError(),
    }
    if arguments.fail in errors:
        raise errors[arguments.fail]
    if arguments.fail == "warning":
        warnings.warn("the two sides are\\nfar apart", stacklevel=1)
        warnings.warn("tomorrow", FutureWarning, stacklevel=1)
    size = (2, validate.count("draws", arguments.draws, 2))
    print("a library's chatter")
    draws = np.random.default_rng(arguments.seed).normal(2, 1, size)
    data = inference_data.make(
        {
            "information_gain": draws,
            "information_gain_mcse": np.full(size, 0.1),
            "kl_gap": draws,
            "irrelevant_share": 0 * draws + 0.5,
            "ggmi": draws * np.nan,
        },
        constant_data={"seed": arguments.seed},
    )
    text = arguments.fail == "text"
    result = Small(
        idata=None if text else data,
        checks=(Check("Lemma 4.5", "holds", measured={"slack": np.float64("nan")}),),
        settings={"rows": np.int64(3)},
        row_counts={} if arguments.fail == "rows" else {"anchor": 5, "synthetic": 10},
        body="nothing to report" if text else "",
    )
    if arguments.fail == "several":
        return {"K": result, "J": result}
    return command.Done(result, exit_status=3 if arguments.fail == "status" else 0)


if __name__ == "__main__":
    sys.exit(command.main([Path(__file__).stem, *sys.argv[1:]]))
'''


@pytest.fixture
def small(tmp_path, monkeypatch):
    """A folder of programs with one in it, `small-program`."""
    folder = tmp_path / "programs"
    folder.mkdir()
    (folder / "small_program.py").write_text(PROGRAM, encoding="utf-8")
    (folder / "_private.py").write_text("")
    monkeypatch.setattr(command, "programs_folder", lambda: folder)
    monkeypatch.chdir(tmp_path)
    return folder


def run(*arguments):
    return command.main(["small-program", "--device", "cpu", *map(str, arguments)])


def report(capsys, *arguments):
    """Exit status 0 and the one JSON object on standard output."""
    assert run("--json", *arguments) == 0
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    return json.loads(out, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


def test_overview_lists_programs_with_the_first_line_of_their_help(small, capsys):
    assert command.main(["--help"]) == 0
    out = capsys.readouterr().out
    assert "small-program  A small program.\n" in out
    assert "private" not in out
    assert command.main([]) == 0
    assert capsys.readouterr().out == out


def test_help_is_the_docstring_with_all_options(small, capsys):
    assert run("--help") == 0
    out = capsys.readouterr().out
    assert "Its second paragraph." in out
    for option in "--seed --device --json --output --figures --quiet --hdi-prob --units".split():
        assert option in out


def test_version(capsys):
    assert command.main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("rbpp ")


def test_a_program_that_does_not_parse_does_not_hide_the_others(small, capsys):
    (small / "broken.py").write_text("def (")
    assert command.main(["--help"]) == 0
    out = capsys.readouterr().out
    assert "A small program." in out
    assert "line 1" in out


def test_json_has_exactly_the_contract(small, capsys):
    found = report(capsys, "--hdi-prob", 0.5)
    assert list(found) == ["terms", "hdi_prob", "audit", "settings", "versions", "ranking"]
    assert list(found["terms"]) == ["information_gain", "kl_gap", "irrelevant_share", "ggmi"]
    for term in found["terms"].values():
        assert list(term) == ["mean", "sd", "hdi_low", "hdi_high", "mcse"]
    gain = found["terms"]["information_gain"]
    assert gain["mcse"] == pytest.approx(0.1)
    # A standard normal's central half is 1.35 wide; 5 standard errors of that width.
    assert gain["hdi_high"] - gain["hdi_low"] == pytest.approx(1.35, abs=0.25)
    assert found["hdi_prob"] == 0.5
    assert set(found["terms"]["ggmi"].values()) == {None}
    assert found["audit"] == [
        {"statement": "Lemma 4.5", "verdict": "holds", "message": "", "slack": None}
    ]
    assert found["settings"]["rows"] == 3
    assert found["settings"]["program"] == "small-program"
    assert found["settings"]["seed"] == 0
    assert found["ranking"] == [{"name": "a", "score": [1.0, None]}]
    assert {"rbpp", "python", "torch", "arviz", "numpy"} <= set(found["versions"])


def test_seed_decides(small, capsys):
    first, again, other = (report(capsys, "--seed", seed)["terms"] for seed in (1, 1, 2))
    assert first == again != other


def test_bits_convert_information_and_its_error_only(small, capsys):
    nats, bits = (report(capsys, "--units", units)["terms"] for units in ("nats", "bits"))
    for name, factor in {"information_gain": 1 / math.log(2), "irrelevant_share": 1}.items():
        for key in ("mean", "sd", "hdi_low"):
            assert bits[name][key] == pytest.approx(factor * nats[name][key])
    assert bits["information_gain"]["mcse"] == pytest.approx(0.1 / math.log(2))


def test_per_row_divides_what_is_per_data_set(small, capsys):
    whole, row = report(capsys)["terms"], report(capsys, "--per-row")["terms"]
    assert row["information_gain"]["mean"] == pytest.approx(whole["information_gain"]["mean"] / 10)
    assert row["information_gain"]["mcse"] == pytest.approx(0.01)
    assert row["kl_gap"] == whole["kl_gap"]
    assert row["irrelevant_share"] == whole["irrelevant_share"]
    assert run("--per-row", "--fail", "rows") == 2
    assert "--per-row" in capsys.readouterr().err


def test_audit_has_the_units_of_what_it_compares():
    audit = [
        {"bounds": "ggmi", "left": 1.0, "slack": 2.0, "slack_sd": None, "probability_holds": 0.5},
        {"bounds": "generalization_error", "left": 1.0},
        {"assumption": "Markov", "left": 1.0},
    ]
    converted = convert_audit(audit, "bits", {"synthetic": 10})
    assert converted[0]["left"] == pytest.approx(0.1 / math.log(2))
    assert converted[0]["slack"] == pytest.approx(0.2 / math.log(2))
    assert converted[0]["slack_sd"] is None
    assert converted[0]["probability_holds"] == 0.5
    assert converted[1:] == audit[1:]
    assert convert_audit(audit) == audit


def test_table_shows_terms_units_and_audit(small, capsys):
    assert run("--units", "bits", "--per-row") == 0
    out = capsys.readouterr().out
    assert "mean (94 % interval)" in out
    line = next(line for line in out.splitlines() if "information_gain" in line)
    assert re.search(r"0\.\d+ \(-?[\d.]+ to [\d.]+\) bits per row ± 0\.014 +ΔI", line)
    assert re.search(r"irrelevant_share +50 %", out)
    assert "1 check: 1 hold (--all shows each)." in out
    assert "Lemma 4.5" not in out
    assert run("--all") == 0
    out = capsys.readouterr().out
    assert "94 % low" in out
    assert "Lemma 4.5" in out


class Terminal(io.StringIO):
    def isatty(self):
        return True


def on_a_terminal(monkeypatch, *arguments, **environment):
    for name in ("NO_COLOR", "FORCE_COLOR", "COLORTERM"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"TERM": "xterm", "COLUMNS": "100", **environment}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("sys.stdout", Terminal())
    assert run(*arguments) == 0
    return sys.stdout.getvalue()


def test_a_terminal_has_colours_unless_it_shall_not(small, monkeypatch):
    coloured = on_a_terminal(monkeypatch, "--all")
    plain = on_a_terminal(monkeypatch, "--all", NO_COLOR="1")
    green = "\x1b[32mholds"
    assert green in coloured
    assert green not in plain
    for shown in (coloured, plain):
        assert "information_gain" in shown
        assert "Lemma 4.5" in shown


def test_a_table_is_as_wide_as_the_terminal(small, monkeypatch):
    for columns, all_of_it in itertools.product((40, 80, 120), ([], ["--all"])):
        if columns == 40 and all_of_it:
            continue  # seven columns of numbers need more
        shown = on_a_terminal(monkeypatch, *all_of_it, NO_COLOR="1", COLUMNS=str(columns))
        lines = [re.sub(r"\x1b\[[\d;]*m", "", line) for line in shown.splitlines()]
        assert max(map(len, lines)) <= max(columns, 50), (columns, shown)
        assert "…" not in shown
        assert "information_gain" in shown


def test_what_was_seen_of_a_check_has_the_width_of_the_terminal(monkeypatch):
    monkeypatch.setattr("sys.stdout", Terminal())
    monkeypatch.setenv("COLUMNS", "80")
    show([format_audit([Check("short", "violated", "words " * 30).to_json()])])
    lines = re.sub(r"\x1b\[[\d;]*m", "", sys.stdout.getvalue()).splitlines()
    assert 60 < max(len(line.rstrip()) for line in lines if "words" in line) <= 80


def test_text_set_by_a_program_is_printed_as_it_is(small, monkeypatch):
    assert "nothing to report\n" in on_a_terminal(monkeypatch, "--fail", "text")
    line = "[b]no markup[/b]" + 30 * " long"
    show([line])
    assert f"{line}\n" in sys.stdout.getvalue()


def test_the_last_line_opens_what_was_written(small, capsys, tmp_path):
    path = tmp_path / "a file.nc"
    assert run("--output", path, "--figures", tmp_path) == 0
    *_, data, options_file, figure = capsys.readouterr().out.splitlines()
    code = re.search(r'python -c "(.*)"$', data)[1]
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, capture_output=True)
    assert options_file.endswith(f"rbpp small-program --config '{tmp_path / 'a file.toml'}'")
    assert "one.png and 1 more" in figure
    assert run() == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == "Nothing was written: --output FILE.nc keeps it."


def test_a_page_is_opened_or_said_to_be_not(monkeypatch, capsys, tmp_path):
    opened = []
    for found in (True, False):
        monkeypatch.setattr(
            "webbrowser.open", lambda page, found=found: [opened.append(page), found][1]
        )
        command._open("rbpp assess", tmp_path / "report.html")
        assert ("found no browser" in capsys.readouterr().err) != found
    assert opened == 2 * [(tmp_path / "report.html").as_uri()]


def test_a_file_of_options_repeats_the_run(small, capsys, tmp_path):
    path = tmp_path / "out.nc"
    given = ["--posterior-draws", 7, "--seed", 3, "--units", "bits", "--per-row"]
    first = report(capsys, *given, "--output", path)
    written = tmp_path / "out.toml"
    assert 'units = "bits"' in written.read_text()
    path.unlink()
    again = report(capsys, "--config", written)
    assert again == first
    assert path.exists()
    other = report(capsys, "--config", written, "--seed", 4)
    assert other["settings"]["seed"] == 4
    assert other["settings"]["draws"] == 7
    assert tomllib.loads(written.read_text())["seed"] == 4


def test_a_file_of_another_kind_is_not_replaced(small, capsys, tmp_path):
    (tmp_path / "out.toml").write_text("mine = 1")
    assert run("--quiet", "--output", tmp_path / "out.nc") == 0
    assert (tmp_path / "out.toml").read_text() == "mine = 1"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("x = ", "is no TOML"),
        ('program = "fit"', "expected options of rbpp small-program"),
        ("sed = 1", "unknown option sed; did you mean seed?"),
        ("seed = -1", "argument --seed: Expected a whole number"),
        ("seed = [1, 2]", "expected one value of seed; got 2"),
        ("seed = []", "an empty list"),
        ("[seed]", "got dict"),
        ('per-row = "yes"', "expected true or false of per-row; got yes"),
        ('units = "bans"', "bans"),
        ("json = true", "unknown option json"),
    ],
)
def test_bad_options_in_a_file_are_refused(small, capsys, tmp_path, content, message):
    (tmp_path / "run.toml").write_text(content)
    assert run("--config", "run.toml") == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1
    assert run("--config", "absent.toml") == 2
    assert "absent.toml" in capsys.readouterr().err


def test_bash_completes_programs_options_and_their_values(tmp_path, capsys):
    assert command.main(["completion", "bash"]) == 0
    script = capsys.readouterr().out
    expected = {"rbpp compl": "completion", "rbpp assess --standard": "--standardise"}
    expected |= {"rbpp fit --units b": "bits", "rbpp completion f": "fish"}
    expected |= {"rbpp check linear": "linear_gaussian", "rbpp fit x --engine n": "nuts"}
    for words, found in expected.items():
        ask = f"COMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); _rbpp"
        done = subprocess.run(
            ["bash", "-c", f'{script}\n{ask}; echo "${{COMPREPLY[@]}}"'],
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.split() == [found], (words, done.stderr)


def test_other_shells_have_every_program(capsys):
    for shell in ("zsh", "fish"):
        assert command.main(["completion", shell]) == 0
        out = capsys.readouterr().out
        assert all(name in out for name in SHIPPED)
        assert "embedding-model" in out
    assert command.main(["completion", "cmd"]) == 2
    assert "expected one of bash, zsh, fish; got cmd" in capsys.readouterr().err


def test_output_holds_draws_in_nats_with_settings_and_audit(small, capsys, tmp_path):
    path = tmp_path / "out.nc"
    terms = report(capsys, "--output", path, "--units", "bits")["terms"]
    data = read(path)
    mean = float(data["posterior"]["information_gain"].mean())
    assert mean == pytest.approx(terms["information_gain"]["mean"] * math.log(2))
    assert json.loads(data.attrs["audit"])[0]["statement"] == "Lemma 4.5"
    assert json.loads(data.attrs["settings"])["units"] == "bits"


def test_figures_are_written_only_where_asked_for(small, capsys, tmp_path):
    assert run("--quiet", "--figures", tmp_path / "new" / "figures") == 0
    written = sorted((tmp_path / "new" / "figures").iterdir())
    assert [path.name for path in written] == ["one.png", "two.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in written)


def test_quiet_prints_nothing_but_json_stays(small, capsys):
    assert run("--quiet") == 0
    assert "information_gain" not in capsys.readouterr().out
    assert report(capsys, "--quiet")["terms"]


def test_several_data_sets_get_a_file_and_a_prefix_each(small, capsys, tmp_path):
    found = report(capsys, "--fail", "several", "--output", tmp_path / "gap.nc")
    assert "K/kl_gap" in found["terms"]
    assert "J/kl_gap" in found["terms"]
    assert {file.name for file in tmp_path.glob("*.nc")} == {"gap_K.nc", "gap_J.nc"}
    assert len(found["audit"]) == 2
    assert run("--fail", "several") == 0
    headings = [line for line in capsys.readouterr().out.splitlines() if line.endswith(":")]
    assert headings == ["K:", "J:"]


def test_text_takes_the_place_of_the_table(small, capsys):
    assert run("--fail", "text") == 0
    assert "nothing to report" in capsys.readouterr().out
    assert run("--fail", "text", "--output", "x.nc") == 2
    assert "no InferenceData" in capsys.readouterr().err


def test_exit_status_of_the_program(small):
    assert run("--fail", "status") == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--fail", "value"], "data.csv, row 3: Expected a number; got x"),
        (["--fail", "file"], "absent.npy"),
        (["--fail", "memory"], "MemoryError"),
        (["--output", "/dev/null"], "the device or pipe /dev/null"),
        (
            ["--output", "programs/small_program.py", "--fail", "programs/small_program.py"],
            "no input",
        ),
        (["--fail", "extra"], "pip install '.[ray]'"),
        (["--seed", "-1"], "whole number"),
        (["--seed", "1.5"], "whole number"),
        (["--seed", str(2**63)], "whole number"),
        (["--seed", "1_0"], "argument --seed: Expected a whole number"),
        (["--posterior-draws", "1"], "Expected --posterior-draws to be a whole number of 2 or"),
        (["--hdi-prob", "94"], "between 0 and 1"),
        (["--hdi-prob", "nan"], "between 0 and 1"),
        (["--hdi-prob", "x"], "between 0 and 1"),
        (["--units", "bans"], "bans"),
        (["--device", "tpu"], "tpu"),
        (["--unknown"], "--unknown"),
        (["--see", "1"], "--see"),
        (["surplus"], "surplus"),
        (["--output", "."], "the folder ."),
        (["--output", "absent/x.nc"], "absent/x.nc"),
        (["--figures", "programs/small_program.py"], "--figures"),
    ],
)
@pytest.mark.parametrize("extra", [[], ["--json"]])
def test_bad_input_is_one_line_and_status_2(small, capsys, arguments, message, extra):
    assert run(*arguments, *extra) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    assert printed.err.startswith("rbpp small-program: ")
    assert message in printed.err


def test_unwritable_output_fails_before_the_work(small, capsys):
    assert run("--output", "absent/x.nc", "--fail", "bug") == 2
    assert run("--figures", "programs/small_program.py", "--fail", "bug") == 2


def test_checking_output_leaves_nothing_and_harms_nothing(small, tmp_path):
    old = tmp_path / "old.nc"
    old.write_bytes(b"kept")
    assert run("--output", "new.nc", "--fail", "value") == 2
    assert run("--output", old, "--fail", "value") == 2
    assert not (tmp_path / "new.nc").exists()
    assert old.read_bytes() == b"kept"


def test_cuda_where_there_is_none(small, capsys):
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    assert command.main(["small-program", "--device", "cuda"]) == 2
    assert "--device cuda" in capsys.readouterr().err
    assert options.resolve_device("auto") == "cpu"


def test_unknown_program_suggests_the_closest(small, capsys):
    assert command.main(["smal-program"]) == 2
    assert "did you mean small-program?" in capsys.readouterr().err
    assert command.main(["zzz"]) == 2
    assert "expected one of small-program" in capsys.readouterr().err


def test_interrupt_is_130_and_a_defect_is_one_line_and_3(small, capsys):
    assert run("--fail", "interrupt") == 130
    assert capsys.readouterr().err == "rbpp: interrupted\n"
    assert run("--fail", "bug") == 3
    line = "rbpp small-program: internal error: RuntimeError: a defect (--traceback shows more)\n"
    assert capsys.readouterr().err == line
    assert run("--fail", "bug", "--traceback") == 3
    assert "small_program.py" in capsys.readouterr().err


def test_warnings_are_one_line_on_standard_error(small, capsys):
    report(capsys, "--fail", "warning")
    assert run("--fail", "warning") == 0
    err = capsys.readouterr().err
    assert err == "rbpp small-program: warning: the two sides are far apart\n"


def test_help_and_version_import_neither_torch_nor_arviz():
    program = (
        "import sys\nfrom rbpp.command import main\nmain(['--help']), main(['--version'])\n"
        "assert not {'torch', 'pyro', 'arviz', 'xarray', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, stdout=subprocess.DEVNULL)


def test_output_to_a_closed_pipe_is_no_traceback():
    program = "import sys; from rbpp.command import main; sys.exit(main(['--help']))"
    with subprocess.Popen(
        [sys.executable, "-u", "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        process.stdout.close()
        assert b"Traceback" not in process.stderr.read()


SHIPPED = sorted(command.programs())


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_program_has_help(name, capsys):
    assert command.programs()[name].endswith((".", "?"))
    assert command.main([name, "--help"]) == 0
    assert "options of every program" in capsys.readouterr().out


@pytest.mark.parametrize("name", SHIPPED)
def test_help_has_examples_that_its_own_parser_takes(name, capsys):
    assert command.main([name, "--help"]) == 0
    text = capsys.readouterr().out.replace("\\\n", " ")
    examples = [line.split("#")[0] for line in text.splitlines() if line.startswith("  rbpp ")]
    own = [line for line in examples if line.startswith(f"  rbpp {name} ") and "…" not in line]
    assert own
    parser = command.parser_of(name)
    for line in own:
        parser.parse_args(shlex.split(line)[2:])


# The functions and groups that take a program's options by name; a new program joins by a line.
TAKEN_BY = {
    "assess": (rbpp.assess, rbpp.Representation, rbpp.Fields),
    "bounds": (rbpp.bounds, rbpp.SampleSizes, rbpp.LemmaConstants, rbpp.LearnerChoice),
    "channel": (rbpp.channel_information,),
    "check": (rbpp.check,),
    "cmi": (rbpp.fine_tune_bounds,),
    "compare": (rbpp.compare, rbpp.Decision, rbpp.Representation, rbpp.Fields),
    "fit": (rbpp.fit_mixture, rbpp.fit_mixture_stream),
    "infer": (rbpp.infer,),
    "kl-gap": (rbpp.study,),
    "mark": (),  # writes into a sheet, and computes nothing
    "mi": (rbpp.mutual_information,),
    "score": (rbpp.score_rows, rbpp.ScoreSettings),
    "simulate": (rbpp.simulate,),
}


def test_every_program_says_what_takes_its_options():
    assert sorted(TAKEN_BY) == SHIPPED


@pytest.mark.parametrize("name", SHIPPED)
def test_options_have_the_defaults_of_the_arguments_that_they_become(name):
    """And the help says them in brackets, as in `per chain (250)`."""
    parser = command.parser_of(name)
    options = {action.dest: action for action in parser._actions}
    for function in TAKEN_BY[name]:
        for argument, about in inspect.signature(function).parameters.items():
            if argument in options and about.default is not inspect.Parameter.empty:
                default = options[argument].default
                # Absent is None of a function, and no text or an empty list of an option.
                assert (default or None) == (about.default or None), (function, argument)
    for action in options.values():
        if isinstance(action.default, int | float) and action.default:  # 0 and False are none
            assert f"({action.default:g})" in action.help or f"({action.default})" in action.help


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_file_runs_as_its_command(name):
    path = command.programs_folder() / f"{name.replace('-', '_')}.py"
    alone = subprocess.run(
        [sys.executable, path, "--seed", "x"], capture_output=True, check=False, text=True
    )
    assert alone.returncode == 2
    assert alone.stderr.startswith(f"rbpp {name}: ")
    assert alone.stderr.count("\n") == 1


def test_shipped_programs_are_where_the_design_has_them():
    assert {"fit", "kl-gap"} <= set(SHIPPED)
    assert (Path(command.programs_folder()) / "fit.py").is_file()


def test_columns_align():
    table = align([["term", "mean", "note"], ["a", "1.5", "x"], ["ΔH", "–", "yy"]])
    assert table.splitlines() == ["term  mean  note", "a      1.5  x", "ΔH       –  yy"]


def test_checks_are_printed_violated_first_with_what_was_seen_and_what_they_rest_on():
    rests_on = Check("rows are independent", "unknown", "not looked at")
    bound = {"bounds": "ggmi", "left": 1.0, "by": "bound_ggmi", "right": 0.5}
    slack = {"slack": -0.5, "slack_sd": 0.25, "slack_mcse": 0.125, "probability_holds": 0.01}
    checks = [
        Check("Lemma 4.5", "holds", "in every world", assumptions=(rests_on,)),
        Check("Theorem 4.10", "violated", measured={**bound, **slack}),
        Check("φ_T is invertible", "violated", "constant", required=False),
        Check("rows are apart", "holds", "seen", required=False),
    ]
    assert str(format_audit([check.to_json() for check in checks])).splitlines() == [
        "check              verdict",
        "Theorem 4.10       violated",
        "    ggmi 1 ≤ bound_ggmi 0.5, slack -0.5 (sd 0.25, mcse 0.125), P(holds) 0.01",
        "φ_T is invertible  violated",
        "    an assumption of some results only",
        "    constant",
        "Lemma 4.5          holds",
        "    in every world",
        "    unknown: rows are independent (not looked at)",
        "rows are apart     holds",
        "    seen",
    ]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (np.float32(0.5), "0.5"),
        (np.array([[1, 2]]), "[[1, 2]]"),
        ({"a": math.nan, "b": -math.inf}, '{"a": null, "b": null}'),
        ((np.bool_(True), None, Path("x")), '[true, null, "x"]'),
        ("ΔH", '"ΔH"'),
    ],
)
def test_json_of_what_programs_hold(value, text):
    assert to_json(value) == text


def test_the_former_spelling_of_workers_is_taken_with_a_note(capsys):
    arguments = ["kl-gap", "--worlds", "2", "--values", "2", "--json"]
    assert command.main([*arguments, "--engine", "local"]) == 0
    captured = capsys.readouterr()
    assert "note: --engine local is now --workers local" in captured.err
    assert json.loads(captured.out)["settings"]["workers"] == "local"
    assert command.main([*arguments, "--engine", "cavi"]) == 2
    assert "expected one of none (see --workers); got cavi" in capsys.readouterr().err
