"""Finding a model by name, path or `module:attribute`, and its knobs: no privilege for our own."""

from __future__ import annotations

import ast
import difflib
import importlib
import importlib.util
import inspect
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType
from typing import Any

from rbpp import shipped
from rbpp.workers import FILE_MODULE, NEIGHBOURS

# What the paper calls knobs of `gaussian_mixture`.
PAPER_KNOBS = {
    "K": "anchor_components",
    "J": "unsampled_components",
    "L": "irrelevant_components",
}
# Functions of a module that an error lists.
_SHOWN = 8
DEFAULT_ATTRIBUTE = "model"


def models_folder() -> Path:
    """The folder of the shipped processes."""
    return shipped.folder("models")


def builtin_names() -> list[str]:
    """Names of the shipped processes."""
    return sorted(
        path.stem for path in models_folder().glob("*.py") if not path.stem.startswith("_")
    )


def find_model(reference: str | Path | Callable[..., Any]) -> tuple[str, Callable[..., Any], str]:
    """(name, model, where it came from) of a callable, built-in name, path or `module:attribute`.

    A path may end in `:attribute` too; without it the file's `model` is taken.

    Raises:
        ValueError: if nothing is found there, naming what is; an error of the file itself passes.
    """
    if callable(reference):
        name = getattr(reference, "__name__", type(reference).__name__)
        return name, reference, getattr(reference, "__module__", None) or "<callable>"
    text = str(reference)
    place, _, attribute = text.partition(":")
    if len(place) == 1 and attribute.startswith(("\\", "/")):  # a drive letter is no module
        place, _, attribute = attribute.partition(":")
        place = f"{text[0]}:{place}"
    if place in builtin_names():
        path: Path | None = models_folder() / f"{place}.py"
    elif place.endswith(".py") or Path(place).is_file():
        path = Path(place).expanduser()
        if not path.is_file():
            raise ValueError(f"Expected a process file; got {place}, which does not exist")
    elif attribute:
        path = None
    else:
        closest = difflib.get_close_matches(place, builtin_names(), 1)
        hint = f"; did you mean {closest[0]}?" if closest else ""
        raise ValueError(
            f"Expected a process: one of {', '.join(builtin_names())}, a path to a .py file, "
            f"or module:attribute; got {text!r}{hint}"
        )
    module = _module_from_name(place) if path is None else _module_from_path(path)
    attribute = attribute or DEFAULT_ATTRIBUTE
    model = getattr(module, attribute, None)
    if not callable(model):
        functions = [
            name
            for name, value in vars(module).items()
            if inspect.isfunction(value)
            and value.__module__ == module.__name__
            and not name.startswith("_")
        ]
        shown = [*functions[:_SHOWN], *["…"] * (len(functions) > _SHOWN)]
        raise ValueError(
            f"Expected a callable named {attribute!r} in {place}; got "
            f"{'none' if model is None else repr(model)} (functions there: "
            f"{', '.join(shown) or 'none'}; name one as {place}:FUNCTION)"
        )
    if path is None:
        return attribute, model, place
    return (path.stem if attribute == DEFAULT_ATTRIBUTE else attribute), model, str(path)


def knob_defaults(model: Callable[..., Any]) -> dict[str, Any]:
    """Keyword knobs of a model with their defaults.

    Raises:
        ValueError: if a parameter has no default, so that the process cannot run by itself.
    """
    defaults = {}
    if inspect.isclass(model):
        raise ValueError(
            f"Expected a model that can be run; got the class {model.__name__}: name an instance "
            f"of it, model = {model.__name__}()"
        )
    # A module of torch takes what its `forward` does.
    called = getattr(model, "forward", model) if hasattr(model, "named_parameters") else model
    for name, parameter in inspect.signature(called).parameters.items():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise ValueError(f"Expected a process with named knobs only; got {parameter}")
        if parameter.default is parameter.empty or parameter.kind is parameter.POSITIONAL_ONLY:
            raise ValueError(
                f"Expected every parameter of the process to be a keyword with a default; "
                f"got {name!r} without"
            )
        defaults[name] = parameter.default
    return defaults


def resolve_knobs(defaults: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """`defaults` with `given` in their place, by name or the paper's letter, of the default's type.

    Text is parsed where the default is not text, so that command lines and Python agree.

    Raises:
        ValueError: for an unknown knob, naming the closest, and for a value of another type.

    >>> resolve_knobs({"outputs": 200, "noise": 0.0}, {"outputs": "50"})
    {'outputs': 50, 'noise': 0.0}
    """
    found: dict[str, Any] = {}
    for letter, value in given.items():
        name = letter if letter in defaults else knob_name(letter)
        if name not in defaults:
            closest = difflib.get_close_matches(name, defaults, 1)
            hint = f"; did you mean {closest[0]}?" if closest else ""
            raise ValueError(
                f"Expected one of the knobs {', '.join(defaults) or '(none)'}; got {letter!r}{hint}"
            )
        if name in found:
            raise ValueError(f"Expected knob {name} once; got it by the paper's letter as well")
        found[name] = _coerce(name, value, defaults[name])
    return {**defaults, **found}


def knob_name(name: str) -> str:
    """The knob that the paper's letter stands for, where it is one."""
    return PAPER_KNOBS.get(name, name)


def parse_settings(settings: Iterable[str]) -> dict[str, str]:
    """{NAME: VALUE} of `NAME=VALUE` texts as given on a command line.

    >>> parse_settings(["outputs=50", "noise=0.1"])
    {'outputs': '50', 'noise': '0.1'}
    """
    parsed: dict[str, str] = {}
    for setting in settings:
        name, equals, value = setting.partition("=")
        name = name.strip()
        if not equals or not name:
            raise ValueError(f"Expected set='NAME=VALUE'; got {setting!r}")
        if name in parsed:
            raise ValueError(f"Expected set={name!r} once; got {parsed[name]!r} and {value!r}")
        parsed[name] = value
    return parsed


def _coerce(name: str, value: Any, default: Any) -> Any:
    kind = type(default)
    expected = f"Expected knob {name} of type {kind.__name__} (default {default!r}); got {value!r}"
    if isinstance(value, str) and kind is not str:
        value = _parse(value, kind, expected)
    if hasattr(value, "item") and getattr(value, "ndim", None) == 0:
        value = value.item()  # a NumPy or torch scalar
    if default is None:
        return value
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    elif kind is int and isinstance(value, float) and value.is_integer():
        value = int(value)
    elif kind in (tuple, list) and isinstance(value, (tuple, list)):
        value = kind(value)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise ValueError(expected)
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"Expected a finite number for knob {name}; got {value!r}")
    return value


def _parse(text: str, kind: type, expected: str) -> Any:
    if kind is bool:
        words = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
        if text.strip().lower() not in words:
            raise ValueError(expected)
        return words[text.strip().lower()]
    for parse in (int, float) if kind in (int, float) else (ast.literal_eval,):
        with suppress(ValueError, SyntaxError):
            return parse(text)
    if kind is type(None):
        return text
    raise ValueError(expected)


def _module_from_name(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and (name == error.name or name.startswith(f"{error.name}.")):
            there = Path(f"{name}.py")
            hint = f"; a file is named with its ending, {there}:NAME" if there.is_file() else ""
            raise ValueError(f"Expected an importable module; got {name!r}{hint}") from None
        raise


def _module_from_path(path: Path) -> ModuleType:
    """A fresh module per load: an edited file is read again, and no top-level name is taken."""
    name = f"{FILE_MODULE}{path.stem}"
    if importlib.util.spec_from_file_location(name, path) is None:
        raise ValueError(f"Expected a Python file; got {path}")
    try:
        with _neighbours(path.resolve().parent):
            return shipped.load(path, name)
    except SyntaxError as error:
        sys.modules.pop(name, None)
        raise ValueError(f"Expected Python in {path}; got {error}") from error
    except ImportError:  # says itself what to install
        sys.modules.pop(name, None)
        raise
    except (Exception, SystemExit) as error:  # a script that ends by itself is no process
        sys.modules.pop(name, None)
        raise ValueError(f"Expected {path} to load; got {type(error).__name__}: {error}") from error


@contextmanager
def _neighbours(folder: Path) -> Iterator[None]:
    """The folder on the path, as for a script; its modules are read again at every load."""
    for name in NEIGHBOURS:
        sys.modules.pop(name, None)
    NEIGHBOURS.clear()
    before = set(sys.modules)
    importlib.invalidate_caches()
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        with suppress(ValueError):
            sys.path.remove(str(folder))
        for name in set(sys.modules) - before:
            file = getattr(sys.modules[name], "__file__", None)
            if file and Path(file).resolve().is_relative_to(folder) and "site-packages" not in file:
                NEIGHBOURS.add(name)
