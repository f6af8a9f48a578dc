"""`rbpp bounds`: table, JSON, InferenceData and figures, and one line for every bad input."""

import json
from pathlib import Path

import pytest

from rbpp import command, inference_data, plots

USERS = Path(__file__).parent.parent / "processes_by_users.py"
MODELS = Path(__file__).parent.parent.parent / "models"
SMALL = ["--worlds", "2", "--replicates", "24", "--pairs", "12", "--groups", "3", "--inner", "8"]
POINT = ["--learner", "point", "--learner-noise", "0.3"]
NAMES = (
    "entropy_anchor entropy_output entropy_synthetic entropy_gap information_gain "
    "information_prompt_output entropy_model_factor compression_bottleneck efficiency "
    "information_synthetic_learner information_anchor_learner bound_information_flow "
    "bound_chain_rule task_divergence generation_divergence total_divergence "
    "generalization_error bound_synthetic bound_synthetic_sharp bound_anchor ggmi bound_ggmi "
    "bound_ggmi_corrected"
).split()


def run(capsys, *arguments):
    status = command.main(["bounds", *SMALL, *arguments])
    return status, capsys.readouterr()


def test_json_has_every_variable_of_the_design_with_its_audit(capsys, tmp_path):
    path = tmp_path / "terms.nc"
    status, printed = run(
        capsys,
        "linear_gaussian",
        *POINT,
        "--json",
        "--output",
        str(path),
        "--figures",
        str(tmp_path),
    )
    assert status == 0, printed.err
    found = json.loads(printed.out)
    for name in NAMES:
        assert found["terms"][name]["mean"] is not None, name
        assert found["terms"][name]["mcse"] is not None, name
    for name in ("information_synthetic_learner", "information_anchor_learner"):
        assert {f"{name}_lower", f"{name}_upper"} <= set(found["terms"])
    statements = {row["statement"]: row for row in found["audit"]}
    assert len(statements) == 11
    for row in statements.values():
        assert row["verdict"] in ("holds", "violated", "undecided", "unknown")
        assert row["assumptions"]
        assert {"left", "right", "slack", "probability_holds"} <= set(row)
    markov = statements["Lemma 4.5"]["assumptions"][0]
    assert markov["verdict"] == "holds"
    assert markov["statement"].startswith("anchor → prompt")
    assert "InfoNCE" in found["estimators"]["information_synthetic_learner"]
    assert found["settings"]["sub_gaussian"] == 0.5
    sides = ("bound_lemma_4_4", "bound_synthetic_sharp", "bound_anchor")
    assert {name: found["stands_as"][name] for name in sides} == dict.fromkeys(sides, "upper side")
    prior = inference_data.read(path)["prior"]
    assert prior["ggmi"].shape == (1, 2)
    assert prior["bound_anchor"].attrs["stands_as"] == "upper side"
    assert prior["bound_anchor"].attrs["long_name"].endswith("an upper side")
    assert "stands_as" not in prior["ggmi"].attrs
    assert prior["task_map"].shape[:2] == (1, 2)
    assert (tmp_path / "terms.png").stat().st_size > 10_000
    assert (tmp_path / "bounds.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("process", "texts"),
    [
        ("gaussian_mixture", []),
        ("finite_alphabet", ["prompting_factor: infinite in"]),
        (
            f"{USERS}:recipe",
            [
                "task_divergence: missing: the process has no site unprompted",
                "entropy_model_factor: no site model_factor",
            ],
        ),
    ],
)
def test_table_names_every_statement_and_what_numbers_cannot_say(capsys, process, texts):
    """Infinite, missing and replaced terms each have a line of their own."""
    status, printed = run(capsys, process, "--all")
    assert status == 0, printed.err
    statements = ("Theorem 4.7", "chain-rule bound", "P(holds)", "ggmi", "curation_leak")
    for text in (*statements, *texts):
        assert text in printed.out


def test_per_row_divides_by_the_rows_of_the_data_set(capsys):
    whole, row = (
        json.loads(run(capsys, f"{USERS}:recipe", *POINT, "--json", *extra)[1].out)
        for extra in ([], ["--per-row"])
    )
    for name, rows in (("entropy_anchor", 6), ("information_gain", 8)):
        mean = whole["terms"][name]["mean"]
        assert row["terms"][name]["mean"] * rows == pytest.approx(mean)
    entry, scaled = (
        next(a for a in found["audit"] if a["by"] == "bound_chain_rule") for found in (whole, row)
    )
    for key in ("left", "right", "slack"):
        assert scaled[key] == pytest.approx(entry[key] / 8, rel=1e-6)
    assert scaled["left"] == pytest.approx(row["terms"][entry["bounds"]]["mean"])
    assert scaled["verdict"] == entry["verdict"]


def test_a_checkpoint_is_read_again_and_is_of_one_work(capsys, tmp_path):
    kept, own = tmp_path / "kept", tmp_path / "own.py"
    own.write_text((MODELS / "linear_gaussian.py").read_text())
    arguments = [str(own), *POINT, "--json", "--checkpoint", str(kept)]
    first = json.loads(run(capsys, *arguments)[1].out)
    before = {path: path.stat().st_mtime_ns for path in kept.glob("*.npz")}
    assert before
    again = json.loads(run(capsys, *arguments)[1].out)
    assert again["terms"] == first["terms"]
    assert {path: path.stat().st_mtime_ns for path in kept.glob("*.npz")} == before
    status, printed = run(capsys, *arguments, "--seed", "1")
    assert (status, "seed 0 there and 1 now" in printed.err) == (2, True)
    own.write_text(own.read_text() + "\n# edited\n")
    status, printed = run(capsys, *arguments)
    assert status == 2
    assert "to be of the same work; got code" in printed.err


def test_learners_can_be_chosen(capsys, tmp_path):
    (tmp_path / "guide.py").write_text(
        "import pyro\nimport pyro.distributions as dist\n"
        "def guide(rows):\n"
        "    pyro.sample('centre', dist.Normal(rows.mean(-2), 0.3).to_event(1))\n"
    )
    described = {}
    small = ["--replicates", "12", "--groups", "2", "--inner", "4"]
    for name in ("point", "mixture", f"{tmp_path / 'guide.py'}:guide"):
        status, printed = run(capsys, f"{USERS}:recipe", "--learner", name, "--json", *small)
        assert status == 0, printed.err
        described[name] = json.loads(printed.out)["settings"]["learner"]
    assert "Gaussian noise" in described["point"]
    assert "conjugate mixture" in described["mixture"]
    assert "Pyro guide guide" in described[f"{tmp_path / 'guide.py'}:guide"]


def test_the_noise_of_the_learner_of_letters_counts(capsys):
    found = []
    for options in ([], ["--learner", "finite"], ["--learner-noise", "0.5"]):
        _, printed = run(capsys, "finite_alphabet", "--worlds", "1", *options, "--json")
        found.append(json.loads(printed.out)["terms"]["information_synthetic_learner"]["mean"])
    assert found[0] == found[1] > found[2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["no_such_process"], "no_such_process"),
        (["linear_gaussian", "--set", "outptus=3"], "outputs"),
        (["linear_gaussian", "--learner", "oracle"], "oracle"),
        (["linear_gaussian", "--components", "0"], "--components"),
        (["linear_gaussian", "--learner", "point", "--components", "2"], "with a mixture only"),
        (["linear_gaussian", "--learner", "finite"], "Expected letters at site synthetic"),
        (["linear_gaussian", "--learner-noise", "0.2"], "Expected letters at site synthetic"),
        (["linear_gaussian", "--learner", "mixture", "--learner-noise", "0.2"], "got a mixture"),
        (["linear_gaussian", "--resolution", "-1"], "resolution"),
        (["linear_gaussian", "--sub-gaussian", "0"], "--sub-gaussian"),
        (["linear_gaussian", "--sub-gaussian", "some"], "estimate"),
        (["linear_gaussian", "--layers", "1", "--contraction", "2"], "contraction"),
        ([f"{USERS}:echo"], "infinitely much: site 'output'"),
        ([f"{USERS}:without_prompt"], "prompt"),
    ],
)
def test_bad_input_is_one_line_and_status_two(capsys, arguments, message):
    status, printed = run(capsys, *arguments)
    assert status == 2
    assert message in printed.err
    assert printed.out == ""
    assert len(printed.err.strip().splitlines()) == 1


def test_the_figure_has_the_verdicts_of_the_audit(capsys, tmp_path):
    path = tmp_path / "bounds.nc"
    _, printed = run(capsys, f"{USERS}:recipe", *POINT, "--json", "--output", str(path))
    verdicts = {row["statement"]: row["verdict"] for row in json.loads(printed.out)["audit"]}
    panels = plots.plot_bounds(inference_data.read(path))
    titles = [axis.get_title(loc="left") for axis in panels.flat if axis.get_title(loc="left")]
    shown = dict(title.partition(", P(holds)")[0].rsplit(": ", 1) for title in titles)
    assert shown == {name: word for name, word in verdicts.items() if word != "unknown"}
    assert verdicts["Lemma 4.5, proof step"] == "unknown"


def test_a_violated_bound_is_named_in_the_figure():
    data = inference_data.make(prior={"ggmi": [[1.0, 2.0]], "bound_ggmi": [[0.5, 0.5]]})
    entry = {
        "statement": "Theorem 4.10",
        "verdict": "violated",
        "bounds": "ggmi",
        "by": "bound_ggmi",
        "probability_holds": 0.0,
    }
    panels = plots.plot_bounds(data, [entry])
    assert panels.flat[0].get_title(loc="left") == "Theorem 4.10: violated, P(holds) = 0.00"


def test_figures_refuse_data_without_bounds():
    with pytest.raises(ValueError, match="bounds"):
        plots.plot_bounds(inference_data.make({"kl_gap": [[1.0, 2.0]]}))
