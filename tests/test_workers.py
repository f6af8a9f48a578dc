"""Work on a Ray cluster: the numbers of one process, whoever does the work and whoever dies."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from rbpp import command
from rbpp import workers as workers_module
from rbpp.checkpoint import Checkpoint
from rbpp.compute import Compute
from rbpp.data.embed import Representation, embed
from rbpp.data.rows import Rows
from rbpp.data.stream import row_stream
from rbpp.kl_gap_study import study
from rbpp.mixtures.stream import Passes, stream_posterior
from rbpp.processes.process import load_process
from rbpp.workers import open_workers

SWEEP = {"worlds": 2, "posterior_draws": 2, "points": 64, "seed": 3}
VALUES = [2, 3, 4]
PASSES = Passes(starts=2, sample_rows=200, exact=3, steps=4)
NUMBERS = ["--components", "3", "--restarts", "2", "--draws", "20", "--points", "32"]
BOUNDS = ["--replicates", "16", "--pairs", "8", "--groups", "2", "--inner", "4"]
WITHOUT_RAY = "ray is not installed: pip install '.[ray]'"


@pytest.fixture(scope="module")
def ray():
    """A cluster on this machine's loopback, for all tests of this file."""
    ray = pytest.importorskip("ray", reason=WITHOUT_RAY)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.delenv("RAY_ADDRESS", raising=False)
        with open_workers("ray"):
            yield ray
        assert not ray.is_initialized()


@pytest.fixture(params=[1, 2])
def workers(ray, request):
    """That many processors of the cluster are to spare, or all of a smaller machine."""
    held = int(ray.cluster_resources()["CPU"]) - request.param
    if held < 1:
        yield
        return
    group = ray.util.placement_group([{"CPU": held}])
    ray.get(group.ready())
    yield
    ray.util.remove_placement_group(group)


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """900 rows around three places, as .npy."""
    path = tmp_path_factory.mktemp("rows") / "rows.npy"
    rng = np.random.default_rng(0)
    np.save(path, rng.normal(0, 1, (900, 2)) + 4 * (np.arange(900) % 3)[:, None])
    return path


def fitted(rows, mapper=map, checkpoint=None):
    compute = Compute(workers=mapper, checkpoint=checkpoint or Checkpoint())
    stream = row_stream(rows, chunk_rows=100)
    return stream_posterior(stream, 3, chains=2, draws=20, passes=PASSES, compute=compute)[0]


def assert_same_fit(found, expected):
    for name in ("weights", "means", "covariances"):
        ours, theirs = (getattr(fit.mixture, name) for fit in (found, expected))
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(found.elbo, expected.elbo, rtol=1e-12, atol=0)


def swept(mapper=map, checkpoint=None):
    compute = Compute(workers=mapper, checkpoint=checkpoint or Checkpoint())
    return study("K", VALUES, **SWEEP, compute=compute).idata["posterior"]


def assert_same_sweep(found, expected):
    for name in ("kl_gap", "kl_gap_coverage"):
        np.testing.assert_allclose(found[name].values, expected[name].values, rtol=1e-9)


@pytest.mark.parametrize("address", ["127.0.0.1:1", "nowhere", "host:port"])
def test_an_address_without_cluster_is_named(address):
    ray = pytest.importorskip("ray", reason=WITHOUT_RAY)
    assert not ray.is_initialized()  # this comes before the cluster of this file: that one is used
    with (
        pytest.raises(ValueError, match=f"Expected a Ray cluster at {address}; got "),
        open_workers("ray", address),
    ):
        pass


def assert_same_terms(found, expected):
    """Of JSON, where what is not finite is null."""
    assert found.keys() == expected.keys()
    for name in expected:
        for value in ("mean", "sd", "hdi_low", "hdi_high"):
            ours, theirs = (terms[name][value] for terms in (found, expected))
            assert ours is theirs is None or ours == pytest.approx(theirs, 1e-9, 1e-12), name


def test_results_come_in_order_and_errors_as_themselves(ray):
    def work(item):
        time.sleep(0.2 if item == 0 else 0)  # the first is done last
        if item == 30:
            raise ValueError("Expected another item; got 30")
        return item, os.getpid()

    with open_workers("ray") as mapper:
        found = list(mapper(work, range(30)))
        assert [item for item, _ in found] == list(range(30))
        assert os.getpid() not in {process for _, process in found}
        with pytest.raises(ValueError, match="Expected another item; got 30"):
            list(mapper(work, range(40)))
        assert list(mapper(work, [])) == []
    assert ray.is_initialized()  # it was there before, and stays


def test_a_cluster_of_our_own_is_on_loopback(ray):
    assert ray.get_runtime_context().gcs_address.startswith("127.0.0.1:")


def test_an_address_without_ray_is_refused(rows, capsys):
    assert command.main(["fit", str(rows), "--stream", *NUMBERS, "--address", "a:1"]) == 2
    assert "--address: expected --workers ray with it; got local" in capsys.readouterr().err


@pytest.mark.usefixtures("workers")
def test_a_streamed_fit_has_the_numbers_of_one_process(rows):
    with open_workers("ray") as mapper:
        assert_same_fit(fitted(rows, mapper), fitted(rows))


@pytest.mark.usefixtures("workers")
def test_a_sweep_has_the_numbers_of_one_process():
    with open_workers("ray") as mapper:
        assert_same_sweep(swept(mapper), swept())


@pytest.mark.usefixtures("ray")
def test_a_worker_that_is_killed_loses_nothing(rows, tmp_path):
    mark = tmp_path / "killed"

    def dying(mapper):
        def mapped(function, items):
            def work(item):
                if not mark.exists() and len(list(tmp_path.iterdir())) >= 5:
                    mark.touch()
                    os.kill(os.getpid(), signal.SIGKILL)
                (tmp_path / str(time.monotonic_ns())).touch()
                return function(item)

            return mapper(work, items)

        return mapped

    with open_workers("ray") as mapper:
        found = fitted(rows, dying(mapper))
    assert mark.exists()
    assert_same_fit(found, fitted(rows))


@pytest.mark.usefixtures("ray")
def test_a_sweep_that_was_cut_off_goes_on(tmp_path):
    done = []

    def cut_off(function, items):
        for number, result in enumerate(mapper(function, items)):
            if number == 2:
                raise KeyboardInterrupt
            yield result

    def recorded(function, items):
        done.extend(items)
        return mapper(function, items)

    with open_workers("ray") as mapper:
        with pytest.raises(KeyboardInterrupt):
            swept(cut_off, Checkpoint(tmp_path, SWEEP))
        found = swept(recorded, Checkpoint(tmp_path, SWEEP))
    assert [batch.value for batch in done] == VALUES[2:]
    assert_same_sweep(found, swept())


def test_bounds_of_a_users_file_have_the_numbers_of_one_process(ray, tmp_path, capsys):
    process = f"{Path(__file__).parent / 'processes_by_users.py'}:recipe"
    arguments = ["bounds", process, *BOUNDS, "--worlds", "2", "--worlds-at-once", "1", "--json"]
    cluster = ["--workers", "ray", "--checkpoint", str(tmp_path / "checkpoint")]
    found = []
    for options in (cluster, cluster, []):
        assert command.main([*arguments, *options]) == 0
        found.append(json.loads(capsys.readouterr().out))
    assert len(list((tmp_path / "checkpoint").glob("worlds-*.npz"))) == 2
    there, again, here = found
    assert again["terms"] == there["terms"]
    assert there["audit"] == here["audit"]
    assert_same_terms(there["terms"], here["terms"])


@pytest.mark.usefixtures("ray")
def test_a_streamed_assessment_has_the_numbers_of_one_process(tmp_path, capsys):
    rng = np.random.default_rng(0)
    for name in ("target", "synthetic"):
        np.save(tmp_path / f"{name}.npy", rng.normal(0, 1, (90, 3)))
    files = [f"--{name}={tmp_path / name}.npy" for name in ("target", "synthetic")]
    sizes = ["--stream", "--sample-rows", "40", "--chunk-rows", "25", "--chains", "2"]
    found, tables = [], []
    for workers in ("ray", "local"):
        rows = tmp_path / f"{workers}.parquet"
        options = ["--draws", "20", "--workers", workers, "--rows", str(rows), "--json"]
        assert command.main(["assess", *files, *sizes, *options]) == 0
        found.append(json.loads(capsys.readouterr().out))
        tables.append(pd.read_parquet(rows))
    there, here = found
    assert_same_terms(there["terms"], here["terms"])
    assert len(tables[0]) == 180
    pd.testing.assert_frame_equal(*tables, rtol=1e-9)


@pytest.mark.usefixtures("ray")
def test_a_comparison_has_the_numbers_of_one_process(tmp_path, capsys):
    rng = np.random.default_rng(0)
    for name, shift in (("real", 0), ("near", 0.1), ("far", 1)):
        np.save(tmp_path / f"{name}.npy", rng.normal(shift, 1, (80, 2)))
    near, far, real = (str(tmp_path / f"{name}.npy") for name in ("near", "far", "real"))
    arguments = ["compare", near, far, "--reference", real, "--draws", "20"]
    found = []
    for workers in ("ray", "local"):
        assert command.main([*arguments, "--workers", workers, "--json"]) == 0
        found.append(json.loads(capsys.readouterr().out))
    there, here = found
    assert_same_terms(there["terms"], here["terms"])
    assert [line["name"] for line in there["ranking"]] == ["near", "far"]


def test_shards_of_text_are_embedded_by_the_workers(ray, tmp_path):
    package = tmp_path / "sentence_transformers.py"
    package.write_text(
        "import os, numpy as np\n"
        "class SentenceTransformer:\n"
        "    def __init__(self, name, device): pass\n"
        "    def encode(self, texts, **options):\n"
        "        return np.array([[len(text), os.getpid()] for text in texts], np.float32)\n"
    )
    folder = tmp_path / "model"
    folder.mkdir()
    texts = [f"{'a' * (1 + index % 7)} {index}" for index in range(600)]
    rows = Rows("anchor", "here", [str(index) for index in range(600)], text=texts)

    def with_package(mapper):
        def mapped(function, items):
            def work(item):
                sys.path.insert(0, str(tmp_path))
                return function(item)

            return mapper(work, items)

        return mapped

    with open_workers("ray") as mapper:
        compute = Compute(workers=with_package(mapper))
        (vectors,), _ = embed(
            [rows], Representation(model=str(folder), cache=tmp_path), compute=compute
        )
    assert vectors[:, 0].tolist() == [len(text) for text in texts]
    assert os.getpid() not in set(vectors[:, 1].astype(int))


# Ends itself, as a machine that loses power would, where the second exact pass begins.
DRIVER = """
import os, signal, sys
from rbpp import command, checkpoint

once = checkpoint.Checkpoint.once

def until(self, name, work):
    if name == "exact-002":
        os.kill(os.getpid(), signal.SIGKILL)
    return once(self, name, work)

checkpoint.Checkpoint.once = until
command.main(sys.argv[1:])
"""


def test_a_driver_that_is_killed_goes_on(ray, rows, tmp_path, capsys):
    checkpoint = tmp_path / "checkpoint"
    arguments = ["fit", str(rows), *NUMBERS, "--chunk-rows", "100", "--json", "--quiet"]
    cluster = [
        *("--workers", "ray", "--address", ray.get_runtime_context().gcs_address),
        *("--checkpoint", str(checkpoint)),
    ]
    done = subprocess.run([sys.executable, "-c", DRIVER, *arguments, *cluster])
    assert done.returncode == -signal.SIGKILL
    before = {path: path.stat().st_mtime_ns for path in checkpoint.glob("*.npz")}
    assert {path.stem for path in before} == {"summary", "starts", "stochastic-001", "exact-001"}

    assert command.main([*arguments, *cluster]) == 0
    found = json.loads(capsys.readouterr().out)
    assert all(path.stat().st_mtime_ns == time for path, time in before.items())
    assert (checkpoint / "exact-002.npz").exists()
    assert command.main([*arguments, "--stream"]) == 0
    assert_same_terms(found["terms"], json.loads(capsys.readouterr().out)["terms"])


def test_modules_beside_a_process_file_go_to_the_workers_as_code(ray, tmp_path):
    (tmp_path / "beside_a_process.py").write_text("SHIFT = 2.5\ndef shift():\n    return SHIFT\n")
    lines = [
        "import beside_a_process",
        "from beside_a_process import shift",
        "def model(knob: float = 1.0):",
        "    return shift() + beside_a_process.SHIFT + knob",
    ]
    (tmp_path / "process.py").write_text("\n".join(lines))
    process = load_process(tmp_path / "process.py")
    with open_workers("ray") as mapper:
        assert list(mapper(lambda _: process(), [0])) == [6.0]


def test_the_environment_is_as_it_was(monkeypatch):
    """Of the calling process; what Ray starts inherits it before."""
    names = ["RAY_USAGE_STATS_ENABLED", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"]
    for name in names:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(names[1], "1")
    before = dict(os.environ)
    with workers_module._environment():
        assert [os.environ[name] for name in names] == ["0", "1"]
    assert dict(os.environ) == before
