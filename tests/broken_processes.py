"""A sound process, and what is wrong with each of its variations: one rule per entry."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

ROWS, DIMENSION = 4, 2


def unit(centre: Tensor, scale: float = 1.0) -> Any:
    return dist.Normal(centre, scale).to_event(1)


def world_centre() -> Tensor:
    return pyro.sample("centre", unit(torch.zeros(DIMENSION)))


def anchors(centre: Tensor) -> Tensor:
    with pyro.plate("anchors", 3):
        return pyro.sample("anchor", unit(centre))


def answer(prompt: Tensor) -> Tensor:
    return prompt.mean(-2, keepdim=True)


def chain(
    *,
    prompt: Callable[[Tensor], Tensor] = lambda anchor: pyro.deterministic("prompt", 2 * anchor),
    output: Callable[[Tensor, Tensor], Tensor] = lambda anchor, prompt: answer(prompt),
    synthetic: Callable[[Tensor, Tensor, Tensor], Tensor] = lambda anchor, prompt, output: output,
) -> None:
    """anchor → prompt → output → synthetic with one of its steps replaced."""
    anchor = anchors(world_centre())
    prompted = prompt(anchor)
    with pyro.plate("outputs", ROWS):
        answered = pyro.sample("output", unit(output(anchor, prompted)))
        pyro.sample("synthetic", unit(synthetic(anchor, prompted, answered), 0.5))


def sound() -> None:
    chain()


def stops() -> None:
    anchors(world_centre())
    raise RuntimeError("no credit left")


def no_synthetic() -> None:
    prompt = pyro.deterministic("prompt", anchors(world_centre()))
    with pyro.plate("outputs", ROWS):
        pyro.sample("output", unit(answer(prompt)))


def varying_sites() -> None:
    chain()
    if torch.rand(()) < 0.5:
        pyro.sample("extra", dist.Normal(0.0, 1.0))


def observed_anchor() -> None:
    centre = world_centre()
    with pyro.plate("anchors", 3):
        anchor = pyro.sample("anchor", unit(centre), obs=torch.ones(3, DIMENSION))
    prompt = pyro.deterministic("prompt", anchor)
    with pyro.plate("outputs", ROWS):
        output = pyro.sample("output", unit(answer(prompt)))
        pyro.sample("synthetic", unit(output))


def wrong_plate() -> None:
    prompt = pyro.deterministic("prompt", anchors(world_centre()))
    with pyro.plate("rows", ROWS):
        output = pyro.sample("output", unit(answer(prompt)))
    with pyro.plate("outputs", ROWS):
        pyro.sample("synthetic", unit(output))


def synthetic_outside_plate() -> None:
    prompt = pyro.deterministic("prompt", anchors(world_centre()))
    with pyro.plate("outputs", ROWS):
        output = pyro.sample("output", unit(answer(prompt)))
    pyro.deterministic("synthetic", output)


def plate_in_another_dimension() -> None:
    prompt = pyro.deterministic("prompt", anchors(world_centre()))
    with pyro.plate("outputs", ROWS, dim=-2):
        output = pyro.sample("output", unit(answer(prompt)))
        pyro.sample("synthetic", unit(output))


def plate_in_the_way() -> None:
    with pyro.plate("batch", 2, dim=-3):
        pyro.sample("shared", dist.Normal(0.0, 1.0))
    chain()


def fewer_rows_than_the_plate() -> None:
    prompt = pyro.deterministic("prompt", anchors(world_centre()))
    with pyro.plate("outputs", ROWS):
        output = pyro.sample("output", unit(answer(prompt)))
        pyro.deterministic("synthetic", output[..., :1, :], event_dim=1)


def subsampled_rows() -> None:
    prompt = pyro.deterministic("prompt", anchors(world_centre()))
    with pyro.plate("outputs", 100, subsample_size=ROWS):
        output = pyro.sample("output", unit(answer(prompt)))
        pyro.sample("synthetic", unit(output))


def rows_without_dimension() -> None:
    prompt = pyro.deterministic("prompt", anchors(world_centre()))
    with pyro.plate("outputs", ROWS):
        output = pyro.sample("output", dist.Normal(answer(prompt)[..., 0], 1.0))
        pyro.sample("synthetic", dist.Normal(output, 1.0))


def rows_of_two_dimensions() -> None:
    prompt = pyro.deterministic("prompt", anchors(world_centre()))
    with pyro.plate("outputs", ROWS):
        output = pyro.sample("output", unit(answer(prompt)))
        pyro.sample("synthetic", unit(output[..., :1]))


def not_a_number() -> None:
    prompt = pyro.deterministic("prompt", anchors(world_centre()))
    with pyro.plate("outputs", ROWS):
        output = pyro.sample("output", unit(answer(prompt)))
        pyro.deterministic("synthetic", (-output.square()).sqrt(), event_dim=1)


def no_density() -> None:
    prompt = pyro.deterministic("prompt", anchors(world_centre()))
    with pyro.plate("outputs", ROWS):
        output = pyro.sample("output", unit(answer(prompt)))
        nothing = torch.full((), -torch.inf)
        pyro.sample("synthetic", dist.Delta(output, log_density=nothing, event_dim=1))


def hidden_noise() -> None:
    chain(output=lambda anchor, prompt: answer(prompt) + torch.randn(DIMENSION))


def world_below_the_chain() -> None:
    prompt = pyro.deterministic("prompt", anchors(world_centre()))
    style = pyro.sample("style", unit(answer(prompt)))
    with pyro.plate("outputs", ROWS):
        output = pyro.sample("output", unit(answer(prompt) + style))
        pyro.sample("synthetic", unit(output))


def world_in_rows() -> None:
    prompt = pyro.deterministic("prompt", anchors(world_centre()))
    with pyro.plate("outputs", ROWS):
        which = pyro.sample("which", dist.Bernoulli(0.5))
        output = pyro.sample("output", unit(answer(prompt) + which.unsqueeze(-1)))
        pyro.sample("synthetic", unit(output))


def anchor_into_output() -> None:
    chain(output=lambda anchor, prompt: answer(prompt) + answer(anchor))


def anchor_into_synthetic() -> None:
    chain(synthetic=lambda anchor, prompt, output: output + answer(anchor))


def prompt_into_synthetic() -> None:
    chain(synthetic=lambda anchor, prompt, output: output + answer(prompt))


def through_a_computed_site() -> None:
    def synthetic(anchor: Tensor, prompt: Tensor, output: Tensor) -> Tensor:
        return output + pyro.deterministic("summary", answer(prompt), event_dim=1)

    chain(synthetic=synthetic)


def target_from_anchors() -> None:
    anchor = anchors(world_centre())
    prompt = pyro.deterministic("prompt", anchor)
    with pyro.plate("targets", ROWS):
        pyro.sample("target", unit(answer(anchor)))
    with pyro.plate("outputs", ROWS):
        output = pyro.sample("output", unit(answer(prompt)))
        pyro.sample("synthetic", unit(output))


def unprompted_from_prompt() -> None:
    prompt = pyro.deterministic("prompt", anchors(world_centre()))
    with pyro.plate("unprompted_outputs", ROWS):
        pyro.sample("unprompted", unit(answer(prompt)))
    with pyro.plate("outputs", ROWS):
        output = pyro.sample("output", unit(answer(prompt)))
        pyro.sample("synthetic", unit(output))


def factor_from_prompt() -> None:
    prompt = pyro.deterministic("prompt", anchors(world_centre()))
    with pyro.plate("outputs", ROWS):
        factor = pyro.sample("model_factor", unit(answer(prompt)))
        output = pyro.sample("output", unit(answer(prompt) + factor))
        pyro.sample("synthetic", unit(output))


def unused_return_value() -> None:
    prompt = 2 * anchors(world_centre())
    pyro.deterministic("prompt", prompt)
    with pyro.plate("outputs", ROWS):
        output = pyro.sample("output", unit(answer(prompt)))
        pyro.sample("synthetic", unit(output))


def synthetic_ignores_output() -> None:
    chain(synthetic=lambda anchor, prompt, output: torch.zeros(DIMENSION))


def neighbouring_rows() -> None:
    chain(synthetic=lambda anchor, prompt, output: output + output.roll(1, -2))


def centred_rows() -> None:
    chain(synthetic=lambda anchor, prompt, output: output - answer(output))


def indexed_from_the_left() -> None:
    chain(output=lambda anchor, prompt: prompt[0])


def dropped_dimension() -> None:
    scale = pyro.sample("scale", dist.LogNormal(torch.zeros(3, DIMENSION), 1.0).to_event(2))
    chain(output=lambda anchor, prompt: prompt.mean(-2) * scale.sum(-2))


def prompt_of_one_row() -> None:
    """Not broken: a drawn prompt outside plates that has one dimension less in a batch."""
    chain(
        prompt=lambda anchor: pyro.sample("prompt", unit(anchor.mean(-2))),
        output=lambda anchor, prompt: prompt.unsqueeze(-2),
    )


def silent_mixing_of_replicates() -> None:
    """Runs in any batch; each replicate sees all of them."""
    chain(
        output=lambda anchor, prompt: (
            answer(prompt) + prompt.reshape(-1, DIMENSION).mean(0) - answer(prompt)
        )
    )


# name: (model, rule, place) of the violation that must be found
BROKEN: dict[str, tuple[Callable[[], None], str, str]] = {
    "stops": (stops, "runs", "stops"),
    "no synthetic": (no_synthetic, "sites", "synthetic"),
    "varying sites": (varying_sites, "sites", "every run"),
    "observed anchor": (observed_anchor, "observed", "anchor"),
    "wrong plate": (wrong_plate, "plate", "output"),
    "synthetic outside": (synthetic_outside_plate, "plate", "synthetic"),
    "plate elsewhere": (plate_in_another_dimension, "plate", "output"),
    "plate in the way": (plate_in_the_way, "plate", "shared"),
    "fewer rows": (fewer_rows_than_the_plate, "size", "synthetic"),
    "subsampled": (subsampled_rows, "size", "output"),
    "rows of numbers": (rows_without_dimension, "event", "output"),
    "two dimensions": (rows_of_two_dimensions, "event", "synthetic, output"),
    "not a number": (not_a_number, "values", "synthetic"),
    "no density": (no_density, "density", "synthetic"),
    "hidden noise": (hidden_noise, "randomness", "output"),
    "world below": (world_below_the_chain, "world", "prompt → style"),
    "world in rows": (world_in_rows, "world", "which"),
    "anchor → output": (anchor_into_output, "markov", "anchor → output"),
    "anchor → synthetic": (anchor_into_synthetic, "markov", "anchor → synthetic"),
    "prompt → synthetic": (prompt_into_synthetic, "markov", "prompt → synthetic"),
    "by a computed site": (through_a_computed_site, "markov", "prompt → synthetic"),
    "anchor → target": (target_from_anchors, "markov", "anchor → target"),
    "prompt → unprompted": (unprompted_from_prompt, "markov", "prompt → unprompted"),
    "prompt → e_M": (factor_from_prompt, "markov", "prompt → model_factor"),
    "unused return value": (unused_return_value, "markov", "anchor → output"),
    "no link": (synthetic_ignores_output, "markov", "output → synthetic"),
    "neighbouring rows": (neighbouring_rows, "rows", "output → synthetic"),
    "centred rows": (centred_rows, "rows", "output → synthetic"),
    "left index": (indexed_from_the_left, "batch", "output"),
    "dropped dimension": (dropped_dimension, "batch", "output"),
    "mixed replicates": (silent_mixing_of_replicates, "batch", "output"),
}


def by_item() -> None:
    chain(synthetic=lambda anchor, prompt, output: output + anchor.sum().item())


def by_list() -> None:
    def synthetic(anchor: Tensor, prompt: Tensor, output: Tensor) -> Tensor:
        return output + torch.tensor(prompt.tolist()).mean(-2, keepdim=True)

    chain(synthetic=synthetic)


def by_numpy() -> None:
    def synthetic(anchor: Tensor, prompt: Tensor, output: Tensor) -> Tensor:
        return output + torch.from_numpy(np.tanh(np.asarray(anchor)).mean(-2, keepdims=True))

    chain(synthetic=synthetic)


def by_branch() -> None:
    chain(synthetic=lambda anchor, prompt, output: output + (1.0 if anchor.sum() > 0 else 0.0))


def by_text() -> None:
    chain(synthetic=lambda anchor, prompt, output: output + len(f"{prompt.sum()}") % 2)


# Edges that Pyro's provenance loses, and an intervention sees.
HIDDEN_EDGES = {
    "item": (by_item, "anchor → synthetic"),
    "list": (by_list, "prompt → synthetic"),
    "NumPy": (by_numpy, "anchor → synthetic"),
    "branch": (by_branch, "anchor → synthetic"),
}


def rare_branch() -> None:
    chain(synthetic=lambda anchor, prompt, output: output + (1.0 if anchor.max() > 50 else 0.0))


def rare_number() -> None:
    chain(synthetic=lambda anchor, prompt, output: output + max(anchor.max().item() - 50, 0.0))


def item_on_an_allowed_edge() -> None:
    chain(output=lambda anchor, prompt: torch.full((DIMENSION,), prompt.mean().item()))


def external_generator() -> None:
    """A language model that is no torch code: its prompt goes in as NumPy."""

    def output(anchor: Tensor, prompt: Tensor) -> Tensor:
        return torch.as_tensor(np.asarray(prompt).mean(-2, keepdims=True))

    chain(output=output)


def zero_coefficient() -> None:
    chain(synthetic=lambda anchor, prompt, output: output + 0 * answer(anchor))


def unreadable_graph() -> None:
    """Multinomial crashes Pyro's provenance (pyro issue 3436)."""
    shares = pyro.sample("shares", dist.Dirichlet(torch.ones(3)))
    pyro.sample("counts", dist.Multinomial(5, shares))
    chain()


# Nothing forbidden happens where the tries go, but the check cannot see everything.
UNSEEN: dict[str, tuple[Callable[[], None], str]] = {
    "rare branch": (rare_branch, "__bool__"),
    "rare number": (rare_number, "item"),
    "item on an allowed edge": (item_on_an_allowed_edge, "item"),
    "external generator": (external_generator, "__array__"),
    "zero coefficient": (zero_coefficient, "zero"),
    "unreadable graph": (unreadable_graph, "cannot be read"),
}
