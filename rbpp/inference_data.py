"""The one place that knows ArviZ: InferenceData under ArviZ 0.x, xarray's DataTree under 1.x.

`chain` is an independent restart, `draw` a posterior draw; every derived variable carries
`long_name`, `units` and `equation`. Nothing here needs torch, and xarray is imported
where it is used.
"""

from __future__ import annotations

import json
import math
import os
import warnings
from collections.abc import Hashable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from rbpp import validate
from rbpp.data.arrays import as_numpy
from rbpp.files import written_whole
from rbpp.variables import VARIABLES, require_described

if TYPE_CHECKING:
    import xarray as xr

    from rbpp.estimate import Estimate

# Groups whose arrays begin with (chain, draw); the others hold what there is one of.
SAMPLED_GROUPS = (
    "posterior",
    "prior",
    "sample_stats",
    "log_likelihood",
    "posterior_predictive",
    "prior_predictive",
)
FIXED_GROUPS = ("observed_data", "constant_data")

Term = dict[str, float | None]


class InferenceData(Protocol):
    """`arviz.InferenceData` of ArviZ 0.x or `xarray.DataTree` of 1.x: groups of datasets."""

    @property
    def attrs(self) -> dict[Any, Any]:
        """Attributes of the whole."""

    def __getitem__(self, group: str) -> Any:
        """The dataset of a group."""


def make(
    posterior: Mapping[str, Any] | None = None,
    *,
    prior: Mapping[str, Any] | None = None,
    sample_stats: Mapping[str, Any] | None = None,
    log_likelihood: Mapping[str, Any] | None = None,
    posterior_predictive: Mapping[str, Any] | None = None,
    prior_predictive: Mapping[str, Any] | None = None,
    observed_data: Mapping[str, Any] | None = None,
    constant_data: Mapping[str, Any] | None = None,
    dims: Mapping[str, Sequence[str]] | None = None,
    coords: Mapping[str, Any] | None = None,
) -> InferenceData:
    """Posterior draws with their companions, as ArviZ wants them.

    Args:
        posterior: name to array (chain, draw, …); a plain number is one chain of one draw.
        prior: the same of draws that no data has conditioned.
        sample_stats: `lp`, `log_q`, `elbo`, `pareto_k`: (chain, draw, …), or (chain,) for one value
            per restart, which every draw of it has.
        log_likelihood: (chain, draw, row), what `az.loo` reads.
        posterior_predictive, prior_predictive: (chain, draw, …).
        observed_data: arrays as they were observed.
        constant_data: knobs and settings: numbers, strings, booleans, arrays; `None` is left out.
        dims: variable name to the names of its dimensions, without `chain` and `draw`.
        coords: dimension name to its labels.

    Returns:
        `arviz.InferenceData` under ArviZ 0.x, `xarray.DataTree` under 1.x: index either by group.

    Raises:
        ValueError: if an array lacks the leading (chain, draw), differs in them from the others, or
            does not have the dimensions that `dims` names.

    >>> data = make({"kl_gap": [[0.5, 0.7]]}, constant_data={"seed": 0})
    >>> data["posterior"]["kl_gap"].attrs["equation"]
    'Section 4.4'
    """
    given = {
        "posterior": posterior,
        "prior": prior,
        "sample_stats": sample_stats,
        "log_likelihood": log_likelihood,
        "posterior_predictive": posterior_predictive,
        "prior_predictive": prior_predictive,
        "observed_data": observed_data,
        "constant_data": constant_data,
    }
    sizes: dict[str, int] = {}
    groups = {
        group: _dataset(group, values, dims or {}, coords or {}, sizes)
        for group, values in given.items()
        if values is not None
    }
    return _container(groups, {})


def replace_group(data: InferenceData, group: str, values: xr.Dataset) -> InferenceData:
    """A copy of `data` with another dataset for one group."""
    return _container({**group_datasets(data), group: values}, data.attrs)


def from_estimates(estimates: Mapping[str, Estimate]) -> dict[str, Any]:
    """Estimates as variables: NAME, `NAME_mcse` where it is not exact, and both sides likewise.

    Args:
        estimates: by name, (chain, draw, …).

    Raises:
        ValueError: naming terms that `rbpp.variables` does not describe: no table would show them.
    """
    require_described(estimates)
    return _with_errors_and_sides(estimates)


def _with_errors_and_sides(estimates: Mapping[str, Estimate]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, estimate in estimates.items():
        found[name] = estimate.value
        if estimate.direction != "exact":
            found[f"{name}_mcse"] = estimate.standard_error
        sides = {"lower": estimate.lower, "upper": estimate.upper}
        found |= _with_errors_and_sides(
            {f"{name}_{side}": own for side, own in sides.items() if own is not None}
        )
    return found


def terms_group(data: InferenceData) -> str:
    """The group that the terms are in: `posterior`, or `prior` where no data was observed."""
    return "posterior" if "posterior" in group_datasets(data) else "prior"


def terms_of(data: InferenceData) -> xr.Dataset:
    """The dataset of the group that the terms are in."""
    return group_datasets(data)[terms_group(data)]


def with_attrs(data: InferenceData, **attrs: Any) -> InferenceData:
    """A copy of `data` with further attributes of the whole: numbers, strings, the rest as JSON."""
    added = {key: _plain(value) for key, value in attrs.items()}
    return _container(group_datasets(data), {**data.attrs, **added})


def group_datasets(data: InferenceData) -> dict[str, xr.Dataset]:
    """The groups of InferenceData or DataTree as plain datasets, by name."""
    import xarray as xr

    if isinstance(data, xr.DataTree):
        return {name: child.to_dataset() for name, child in data.children.items()}
    groups: Any = data
    return {name: groups[name] for name in groups.groups()}


def write(data: InferenceData, path: str | os.PathLike[str]) -> None:
    """Write `data` to a NetCDF file, whole or not at all.

    Raises:
        OSError: if the file cannot be written.
    """
    import xarray as xr

    tree = xr.DataTree.from_dict({"/": xr.Dataset(attrs=dict(data.attrs)), **group_datasets(data)})
    with written_whole(path) as aside:
        try:
            # HDF5 does not survive a full disk: it writes to memory, and that to the file.
            content = tree.to_netcdf(None, engine="h5netcdf")
        except (TypeError, ValueError):  # before xarray 2025.8
            tree.to_netcdf(aside, engine="h5netcdf")
        else:
            aside.write_bytes(content)


def read(path: str | os.PathLike[str]) -> InferenceData:
    """Read what `write` wrote, into memory.

    Raises:
        ValueError: if the file is no NetCDF file, or has neither a posterior nor a prior group with
            chains and draws.
        OSError: if there is no such file.
    """
    import xarray as xr

    target = Path(path)
    if target.exists() and not target.is_file():  # a pipe would be waited for
        raise ValueError(f"Expected a NetCDF file of rbpp; got {target}, which is no regular file")
    with target.open("rb"):  # a missing or unreadable file says so itself
        pass
    try:
        with xr.open_datatree(target, engine="h5netcdf") as tree:
            groups = {str(name): child.to_dataset().load() for name, child in tree.children.items()}
            attrs = dict(tree.attrs)
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(f"Expected a NetCDF file of rbpp; got {target}: {error}") from error
    sampled = groups.get("posterior", groups.get("prior", xr.Dataset()))
    if not {"chain", "draw"} <= set(sampled.dims):
        raise ValueError(
            f"Expected a group `posterior` or `prior` with dimensions chain and draw in {target}; "
            f"got groups {sorted(groups) or 'none'}"
        )
    return _container(groups, attrs)


def term_table(data: InferenceData, hdi_prob: float = 0.94, *, prefix: str = "") -> dict[str, Term]:
    """Every term in numbers, of the posterior or else the prior group: what tables and JSON show.

    A term is a variable that has `units`; `NAME_mcse` belongs to NAME. A term with more
    dimensions has one entry per element, NAME[label, …], as ArviZ writes it.

    Args:
        data: InferenceData with the terms.
        hdi_prob: probability of the highest-density interval, in (0, 1).
        prefix: dimension whose label stands before the name, as label/NAME.

    Returns:
        NAME to `mean` and `sd` over all draws of all chains, `hdi_low`, `hdi_high`, and `mcse`, the
        Monte Carlo standard error of a draw (root mean square over draws). `None` where there is no
        such number: no spread from one draw, no mcse of a closed form, a draw that is not a number.

    Raises:
        ValueError: if `hdi_prob` is not inside (0, 1).

    >>> term_table(make({"kl_gap": [[1.0, 2.0, 3.0]]}), 0.5)["kl_gap"]["mean"]
    2.0
    """
    validate.probability("hdi_prob", hdi_prob)
    posterior = terms_of(data)
    table: dict[str, Term] = {}
    for name in map(str, posterior.data_vars):
        if name.endswith("_mcse") or "units" not in posterior[name].attrs:
            continue
        errors = posterior.get(f"{name}_mcse")
        for before, label, draws, error in _elements(posterior[name], errors, prefix):
            table[before + name + label] = {
                **_spread(draws, hdi_prob),
                "mcse": None if error is None else _number(float(np.sqrt(np.mean(error**2)))),
            }
    return table


def highest_density_interval(draws: np.ndarray, hdi_prob: float) -> tuple[float, float]:
    """The shortest interval that holds `hdi_prob` of the draws, as ArviZ computes it.

    Args:
        draws: (n,), at least two.
        hdi_prob: in (0, 1).

    >>> highest_density_interval(np.array([0.0, 5.0, 5.1, 5.2, 9.0]), 0.5)
    (5.0, 5.2)
    """
    ordered = np.sort(draws)
    inside = min(math.floor(hdi_prob * ordered.size), ordered.size - 1)
    low = int(np.argmin(ordered[inside:] - ordered[: ordered.size - inside]))
    return float(ordered[low]), float(ordered[low + inside])


def _container(groups: Mapping[str, xr.Dataset], attrs: Mapping[Any, Any]) -> InferenceData:
    if int(version("arviz").split(".")[0]) >= 1:
        import xarray as xr

        return xr.DataTree.from_dict({"/": xr.Dataset(attrs=dict(attrs)), **groups})
    with warnings.catch_warnings():  # ArviZ 0.23 announces 1.0 whenever it is imported
        warnings.simplefilter("ignore", FutureWarning)
        import arviz
    return arviz.InferenceData(attrs=dict(attrs), **dict[str, Any](groups))


def _dataset(
    group: str,
    values: Mapping[str, Any],
    dims: Mapping[str, Sequence[str]],
    coords: Mapping[str, Any],
    sizes: dict[str, int],
) -> xr.Dataset:
    import xarray as xr

    variables = {}
    for name, value in values.items():
        if value is None and group in FIXED_GROUPS:
            continue
        array = _array(f"{group} variable {name}", value)
        leading: tuple[str, ...] = ()
        if group in SAMPLED_GROUPS:
            array, leading = _with_draws(group, name, array, sizes)
        own = _dimension_names(group, name, array.ndim - len(leading), dims)
        variable = VARIABLES.get(name)
        variables[name] = xr.Variable((*leading, *own), array, variable.attrs if variable else {})
    used = {str(dimension) for variable in variables.values() for dimension in variable.dims}
    # Every dimension has labels: without them ArviZ makes no data frame.
    dataset = xr.Dataset(variables)
    return dataset.assign_coords(
        {
            name: np.arange(dataset.sizes[name])
            if coords.get(name) is None
            else _array(f"coordinate {name}", coords[name])
            for name in sorted(used)
        }
    )


def _with_draws(
    group: str, name: str, array: np.ndarray, sizes: dict[str, int]
) -> tuple[np.ndarray, tuple[str, ...]]:
    """The array with its leading dimensions; `sizes` remembers those of the first one."""
    if array.ndim == 0:
        array = array.reshape(1, 1)
    if group == "sample_stats" and array.ndim == 1:
        # Of every draw of the restart: `arviz.concat` refuses along draws what lacks them.
        array = np.repeat(array[:, None], sizes.get("draw", 1), 1)
    leading = ("chain", "draw")
    if array.ndim < len(leading) or 0 in array.shape[: len(leading)]:
        raise ValueError(
            f"Expected {group} variable {name} of shape (chain, draw, …); got {array.shape}"
        )
    for position, dimension in enumerate(leading):
        size = array.shape[position]
        if sizes.setdefault(dimension, size) != size:
            raise ValueError(
                f"Expected {sizes[dimension]} of dimension {dimension} in {group} variable {name}; "
                f"got shape {array.shape}"
            )
    return array, leading


def _dimension_names(
    group: str, name: str, count: int, dims: Mapping[str, Sequence[str]]
) -> tuple[str, ...]:
    base = name.removesuffix("_mcse") if name not in dims else name
    given = dims.get(base)
    if given is None:
        return tuple(f"{name}_dim_{position}" for position in range(count))
    if len(given) != count:
        raise ValueError(
            f"Expected dimensions {list(given)} in {group} variable {name}; got {count} dimensions"
        )
    return tuple(given)


def _array(what: str, value: Any) -> np.ndarray:
    array = as_numpy(value)
    if array.dtype.kind not in "biufcSU":
        raise ValueError(f"Expected {what} of numbers, booleans or strings; got {array.dtype}")
    return array


def _plain(value: Any) -> Any:
    """NetCDF attributes are numbers and strings; the rest travels as JSON."""
    if isinstance(value, str | int | float) and not isinstance(value, bool):
        return value
    return json.dumps(value, default=str, ensure_ascii=False)


def _elements(
    term: xr.DataArray, errors: xr.DataArray | None, prefix: str
) -> list[tuple[str, str, np.ndarray, np.ndarray | None]]:
    """Labels before and after the name, draws and errors of each element of a term."""
    sampled = [name for name in ("chain", "draw") if name in term.dims]
    own: list[Hashable] = [name for name in term.dims if name not in sampled]
    shape = [term.sizes[name] for name in own]

    def flat(array: xr.DataArray) -> np.ndarray:
        return array.transpose(*own, *sampled).values.reshape(math.prod(shape), -1)

    draws, error = flat(term), None if errors is None else flat(errors)
    found = []
    for place, index in enumerate(np.ndindex(*shape)):
        labels = {
            name: str(term.coords[name].values[i]) if name in term.coords else str(i)
            for name, i in zip(own, index, strict=True)
        }
        before = f"{labels.pop(prefix)}/" if prefix in labels else ""
        after = f"[{', '.join(labels.values())}]" if labels else ""
        found.append((before, after, draws[place], None if error is None else error[place]))
    return found


def _spread(draws: np.ndarray, hdi_prob: float) -> Term:
    finite = bool(np.isfinite(draws).all())
    mean = float(draws.mean()) if finite or not np.isnan(draws).any() else math.nan
    if not finite or draws.size < 2:
        return {"mean": _number(mean), "sd": None, "hdi_low": None, "hdi_high": None}
    low, high = highest_density_interval(draws, hdi_prob)
    return {
        "mean": mean,
        "sd": _number(float(draws.std(ddof=1))),
        "hdi_low": low,
        "hdi_high": high,
    }


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None
