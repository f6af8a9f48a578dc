"""The wheel, built and installed away from the checkout, has the same commands."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

import rbpp
from rbpp import command

CHECKOUT = Path(__file__).resolve().parent.parent
SOURCES = ("rbpp", "models", "inference")


def run(*arguments, cwd, check=True):
    clean = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    done = subprocess.run(
        arguments, cwd=cwd, capture_output=True, text=True, check=False, env=clean
    )
    if check:
        assert done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """By way of the source archive, from a copy: the checkout stays clean. Without the network."""
    source = tmp_path_factory.mktemp("source")
    for name in SOURCES:
        shutil.copytree(
            CHECKOUT / name, source / name, ignore=shutil.ignore_patterns("__pycache__")
        )
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(CHECKOUT / name, source / name)
    run(
        *(sys.executable, "-m", "build", "--no-isolation", "--outdir", "dist", "."),
        cwd=source,
    )
    (built,) = (source / "dist").glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """An environment with the wheel alone, that sees this one's libraries but not the checkout."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False)
    purelib = Path(sysconfig.get_path("purelib", vars={"base": str(folder)}))
    # Not a .pth file with `import`: the libraries' own .pth files, the checkout's editable install
    # among them, are not read for a folder that is only on the path.
    (purelib / "libraries.pth").write_text(sysconfig.get_path("purelib"))
    run(
        *(sys.executable, "-m", "pip", "--python", folder / "bin" / "python", "install"),
        *("--quiet", "--no-deps", "--no-index", "--disable-pip-version-check", wheel),
        cwd=folder,
    )
    return folder / "bin"


@pytest.fixture
def empty(tmp_path):
    folder = tmp_path / "empty"
    folder.mkdir()
    return folder


def test_wheel_has_programs_processes_and_types_and_nothing_else(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    for folder, inside in (("inference", "rbpp/inference"), ("models", "rbpp/models")):
        for path in (CHECKOUT / folder).glob("*.py"):
            assert f"{inside}/{path.name}" in names
    for path in (
        "rbpp/py.typed",
        "rbpp/variables.toml",
        "rbpp/assessment/comparison.html.jinja",
        "rbpp/assessment/report.css",
        "rbpp/assessment/report.js",
    ):
        assert path in names
    tops = {name.split("/")[0] for name in names}
    assert tops == {"rbpp", f"rbpp-{rbpp.__version__}.dist-info"}
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_installed_command_lists_the_same_programs(installed, empty):
    shown = run(installed / "rbpp", "--help", cwd=empty).stdout
    assert all(f"  {name} " in shown for name in command.programs())
    again = run(installed / "python", "-m", "rbpp", "--help", cwd=empty).stdout
    assert again == shown
    assert run(installed / "rbpp", "--version", cwd=empty).stdout == f"rbpp {rbpp.__version__}\n"


def test_installed_command_runs_a_shipped_process(installed, empty):
    done = run(installed / "rbpp", "check", "gaussian_mixture", "--device", "cpu", cwd=empty)
    assert "holds" in done.stdout
    assert list(empty.iterdir()) == []


def test_import_names(installed, empty):
    where = run(
        *(installed / "python", "-c", "import rbpp.models, rbpp.inference; print(rbpp.__file__)"),
        cwd=empty,
    ).stdout
    assert not Path(where.strip()).is_relative_to(CHECKOUT)
    for name in ("models", "inference"):
        done = run(installed / "python", "-c", f"import {name}", cwd=empty, check=False)
        assert "ModuleNotFoundError" in done.stderr


def test_every_exported_name_is_there():
    for name in rbpp.__all__:
        assert getattr(rbpp, name) is not None
        assert name in dir(rbpp)
    with pytest.raises(AttributeError, match="no attribute 'absent'"):
        rbpp.absent  # noqa: B018


def test_a_function_is_not_hidden_by_the_module_of_its_name():
    program = (
        "import importlib, rbpp\n"
        "for name, module in rbpp._MODULES.items():\n"
        "    importlib.import_module(module)\n"
        "    assert callable(getattr(rbpp, name)), name\n"
    )
    run(sys.executable, "-W", "ignore", "-c", program, cwd=CHECKOUT)


def test_constraints_pin_every_requirement():
    project = (CHECKOUT / "pyproject.toml").read_text()
    pinned = {
        line.split("==")[0].lower().replace("_", "-")
        for line in (CHECKOUT / "constraints.txt").read_text().splitlines()
        if "==" in line
    }
    required = re.findall(r'^    "([a-z0-9-]+)(?:\[[a-z]+\])?[><=]', project, re.MULTILINE)
    assert len(required) > 15
    assert set(required) - pinned == set()


def test_what_others_run_are_targets_of_the_makefile():
    """The workflows and the hooks run `make`, and a step of theirs can be run by hand."""
    targets = set(re.findall(r"^(\w+):", (CHECKOUT / "Makefile").read_text(), re.MULTILINE))
    hooks = CHECKOUT / ".pre-commit-config.yaml"
    for path in (*(CHECKOUT / ".github" / "workflows").glob("*.yml"), hooks):
        runs = re.findall(r"(?:run|entry): make (.*)", path.read_text())
        named = {word for line in runs for word in line.split() if "=" not in word}
        assert named, path
        assert named <= targets, path


def test_the_version_is_cited():
    cited = (CHECKOUT / "CITATION.cff").read_text()
    assert f"version: {rbpp.__version__}\n" in cited
