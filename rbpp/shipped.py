"""What the wheel carries beside the library: programs and models, each a file that is loaded."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType


def folder(name: str) -> Path:
    """`inference` or `models`: inside the package once installed, beside it in a checkout."""
    package = Path(__file__).resolve().parent
    installed = package / name
    return installed if installed.is_dir() else package.parent / name


def load(path: Path, name: str) -> ModuleType:
    """The module of a file of Python, under this name: dataclasses and pickling look it up."""
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None  # a .py file always has a spec and a loader
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module
