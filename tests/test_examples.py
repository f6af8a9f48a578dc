"""Every example runs, in a small configuration, and says what its text claims."""

import importlib.util
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"


def load(name):
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


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


# A new example joins by a function of its name.
CHECKS = {"exact_kl_gap": exact_kl_gap, "fine_tunes": fine_tunes, "paper_figures": paper_figures}


@pytest.mark.parametrize("name", sorted(path.stem for path in EXAMPLES.glob("*.py")))
def test_example(name, tmp_path, capsys):
    CHECKS[name](load(name), tmp_path)
    assert capsys.readouterr().out
