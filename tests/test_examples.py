"""Every example runs, in a small configuration, and says what its text claims."""

import importlib.util
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"


def load(name):
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def finite_chain(module, folder):
    found = module.main()
    assert found["information_synthetic_learner"] <= found["bound_chain_rule"] + 1e-9
    assert found["bound_chain_rule"] <= found["bound_information_flow"] + 1e-9


def exact_kl_gap(module, folder):
    found = module.main(worlds=16, redraws=4, values=(2, 12))
    assert found["own"] > 3  # nats, of a distribution against itself
    assert found["positive"] < 0.5 < found["positive_coverage"]
    assert found["K", "kl_gap"][1] > found["K", "kl_gap"][0]
    assert found["K", "kl_gap_coverage"][1] < found["K", "kl_gap_coverage"][0]
    assert found["L", "kl_gap"][1] < found["L", "kl_gap"][0]


def paper_figures(module, folder):
    paths = module.main(folder / "new", worlds=3, values=range(2, 4))
    assert len(paths) == 3
    assert all(path.stat().st_size > 10_000 for path in paths)


def fine_tunes(module, folder):
    found = module.main(fine_tunes=12, pairs=40, draws=20)
    for gap, bound in zip(found["gap"], found["fast_rate"], strict=True):
        assert 0.02 < gap < bound + 0.02  # the posterior mean against the gap as measured
    assert 0 < found["error"] < 1 < found["theorem_4_7"]


def lemma_4_5_proof_step(module, folder):
    found = module.main()
    assert found["exclusive_or"] > 0.69
    assert found["step"] > 0.1
    assert max(found["lemma"], found["chain_rule"]) < 1e-9


def theorem_4_10_corrected(module, folder):
    found = module.main(worlds=3)
    assert found[0.0, "finite"] == 0 < 0.9 < found[0.2, "finite"]
    assert found[0.9, "finite, corrected"] == 0
    assert found[2.0, "Theorem 4.10"] == "violated"
    assert found[2.0, "Theorem 4.10, corrected (ours)"] == found[0.0, "Theorem 4.10"] == "holds"


def how_loose(module, folder):
    found = module.main(settings=({"outputs": 30}, {"outputs": 90}), worlds=2, replicates=24)
    for terms in found:
        assert terms["estimation_gap"] < terms["bound_lemma_4_4"] < terms["bound_lemma_4_6"]
        assert terms["bound_synthetic_sharp"] < terms["bound_synthetic"]
        assert 10 * terms["bound_chain_rule"] < terms["bound_information_flow"]
    assert found[1]["bound_lemma_4_4"] < found[0]["bound_lemma_4_4"]


def bicycle_shop(module, folder):
    sets = module.main(folder)
    assert {name: len(rows) for name, rows in sets.items()} == {
        "seeds": 60,
        "held_out": 240,
        "first": 320,
        "second": 320,
    }
    topics = [row["topic"] for row in sets["first"]]
    assert topics.count("recipe") == 80
    assert "return" not in topics
    for rows in sets.values():
        assert len({row["text"] for row in rows}) == len(rows)
    lines = (folder / "truth.csv").read_text().splitlines()
    assert sum(line.endswith(",1") for line in lines) == 80


def compare_labelled(module, folder):
    found = module.main()
    scores = [line["score"] for line in found.values()]
    assert scores == sorted(scores, reverse=True)
    assert found["clean"]["accuracy"] > found["wrong labels"]["accuracy"]
    assert next(iter(found)) == "clean"


def posterior_of_a_world(module, folder):
    posterior, bounds = module.main(dimension=3, seconds=600.0, worlds=2)
    terms = posterior.summary()
    assert 0 < terms.loc["shift_length", "hdi_low"] < terms.loc["shift_length", "mean"]
    assert 0 < terms.loc["prompt_share", "mean"] < 1
    assert "entropy_synthetic" in bounds.terms


# A new example joins by a function of its name.
CHECKS = {
    "bicycle_shop": bicycle_shop,
    "compare_labelled": compare_labelled,
    "exact_kl_gap": exact_kl_gap,
    "fine_tunes": fine_tunes,
    "finite_chain": finite_chain,
    "how_loose": how_loose,
    "lemma_4_5_proof_step": lemma_4_5_proof_step,
    "paper_figures": paper_figures,
    "posterior_of_a_world": posterior_of_a_world,
    "theorem_4_10_corrected": theorem_4_10_corrected,
}


@pytest.mark.parametrize("name", sorted(path.stem for path in EXAMPLES.glob("*.py")))
def test_example(name, tmp_path, capsys):
    CHECKS[name](load(name), tmp_path)
    assert capsys.readouterr().out
