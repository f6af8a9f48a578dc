"""What every job's result can do, of a small one."""

import json

import numpy as np
import pytest

import rbpp
from rbpp import inference_data
from rbpp.checks import Check
from rbpp.processes.contract import Contract
from rbpp.result import Result


@pytest.fixture
def result():
    rng = np.random.default_rng(0)
    draws = {name: rng.normal(size=(2, 50)) for name in ("ggmi", "ggmi_lower", "ggmi_upper")}
    return Result(
        idata=inference_data.make({**draws, "ggmi_mcse": np.full((2, 50), 0.1)}),
        checks=(Check("Lemma 4.4", "violated", "seen <here>"),),
        settings={"seed": 3},
        headline=("The gain is unclear.",),
        row_counts={"synthetic": 10},
    )


def test_terms_carry_errors_and_sides(result):
    ggmi = result.terms["ggmi"]
    assert ggmi.value.shape == (2, 50)
    assert float(ggmi.standard_error[0, 0]) == pytest.approx(0.1)
    assert ggmi.lower.value.shape == (2, 50)
    assert list(result.terms) == ["ggmi"]


def test_printing_a_result_gives_its_text_and_its_repr_stays_short(result):
    assert str(result) == result.text()
    assert "The gain is unclear." in str(result)
    assert repr(result) == "<Result: 3 terms, 1 checks, 1 violated>"


def test_results_without_terms_sum_up_what_they_have():
    drawn = rbpp.simulate("finite_alphabet", worlds=3, replicates=2)
    sites = drawn.summary()
    assert list(sites.columns) == ["role", "shape", "mean", "sd", "least", "greatest"]
    assert sites.index.name == "site"
    assert list(sites.index) == [entry["site"] for entry in drawn.site_table()]
    anchor = drawn.sites["anchor"].double()
    assert sites.loc["anchor", "shape"] == tuple(anchor.shape[2:])
    assert sites.loc["anchor", "least"] == anchor.min().item()
    assert sites.loc["anchor", "greatest"] == anchor.max().item()
    assert sites.loc["anchor", "mean"] == pytest.approx(anchor.mean().item())
    assert sites.loc["anchor", "sd"] == pytest.approx(anchor.std(correction=0).item())
    assert str(drawn) == drawn.text()

    found = Contract(checks=(Check("a", "holds", "seen"), Check("b", "unknown", required=False)))
    checks = found.summary()
    assert checks.index.tolist() == ["a", "b"]
    assert checks["verdict"].tolist() == ["holds", "unknown"]
    assert checks.loc["b"].tolist() == ["unknown", False, ""]


def test_summary_json_and_table_agree(result):
    summary = result.summary(0.9)
    found = json.loads(result.to_json(0.9))
    assert found["terms"]["ggmi"]["mean"] == pytest.approx(summary.loc["ggmi", "mean"])
    assert found["audit"] == [
        {"statement": "Lemma 4.4", "verdict": "violated", "message": "seen <here>"}
    ]
    assert found["settings"]["seed"] == 3
    assert found["hdi_prob"] == 0.9
    assert "rbpp" in found["versions"]


def test_units_and_rows(result):
    whole = result.summary().loc["ggmi", "mean"]
    bits = result.summary(units="bits", per_row=True).loc["ggmi", "mean"]
    assert bits == pytest.approx(whole / np.log(2) / 10)
    with pytest.raises(ValueError, match="Expected rows to divide by"):
        Result(idata=result.idata).summary(per_row=True)


def test_both_sides_of_a_term_stand_on_its_line(result):
    table = result.table()
    line = next(line for line in result.text().splitlines() if "ggmi" in line)
    low, high = table["ggmi_lower"]["hdi_low"], table["ggmi_upper"]["hdi_high"]
    assert f"({low:.2f} to {high:.2f})" in line
    assert "ggmi_lower" not in result.text()
    assert "ggmi_lower" in result.text(everything=True)


def test_figures_are_drawn_by_name(result):
    with pytest.raises(ValueError, match="this result has no figure"):
        result.plot()


def test_polars_has_what_pandas_has(result):
    polars = pytest.importorskip("polars")
    frame = result.to_polars(0.9)
    assert isinstance(frame, polars.DataFrame)
    assert frame["term"].to_list() == list(result.summary().index)
    assert frame["mean"][0] == result.summary().loc["ggmi", "mean"]


def test_what_is_saved_is_read(result, tmp_path):
    result.save(tmp_path / "x.nc", settings={"program": "test"})
    back = inference_data.read(tmp_path / "x.nc")
    assert json.loads(back.attrs["settings"]) == {"program": "test", "seed": 3}
    assert json.loads(back.attrs["audit"])[0]["verdict"] == "violated"
    with pytest.raises(ValueError, match="one without"):
        Result().save(tmp_path / "y.nc")


def test_notebook_shows_headline_terms_and_checks_escaped(result):
    page = result._repr_html_()
    assert "The gain is unclear." in page
    assert "ggmi" in page
    assert "seen &lt;here&gt;" in page
    assert repr(result) == "<Result: 3 terms, 1 checks, 1 violated>"


def test_violated_checks_are_shown_first():
    checks = Check("Lemma 4.5", "holds"), Check("Lemma 4.4", "violated")
    result = Result(checks=checks)
    for shown in (result.text(everything=True), result._repr_html_()):
        assert shown.index("Lemma 4.4") < shown.index("Lemma 4.5")
    brief = result.text()
    assert "Lemma 4.5" not in brief
    assert "2 checks: 1 violated, 1 hold" in brief
    assert [entry["statement"] for entry in result.audit()] == ["Lemma 4.5", "Lemma 4.4"]


def test_text_has_all_parts(result):
    text = result.text()
    for part in ("The gain is unclear.", "ggmi", "Lemma 4.4", "seen <here>"):
        assert part in text


def test_terms_of_a_prior_are_terms():
    result = Result(idata=inference_data.make(prior={"ggmi": [[1.0, 2.0]]}))
    assert result.summary().loc["ggmi", "mean"] == 1.5
    assert result.terms["ggmi"].value.shape == (1, 2)
