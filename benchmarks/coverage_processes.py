"""Four processes as a user would write them, none of them shipped, whose terms are known exactly.

`letters`: the prompt is drawn, and nothing is named e_M. `monotone`: positive rows, curated by
factors, the logarithms of which are normal. `factor_above`: e_M is sampled above the output, and
shared by its rows. `off_task`: a generator that answers beside the task, and a filter.
"""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from benchmarks.coverage_truth import (
    Knobs,
    NormalChain,
    World,
    data_sets,
    index_of,
    letters_truth,
    most_frequent,
    normal_truth,
    product,
)
from examples import finite_chain as chains

PROMPT_NOISE, FACTOR, OWN = 0.3, 0.7, 0.6
TASK, GENERATOR = 0.8, 1.0


def letters(anchors: int = 2, outputs: int = 3, letters: int = 3) -> None:
    """A letter is asked for by examples, answered and retyped, all by chance."""
    table = dist.Dirichlet(torch.ones(letters))
    task, general = pyro.sample("task", table), pyro.sample("general", table)
    tables = dist.Dirichlet(torch.ones(letters, letters)).to_event(1)
    answers, slips = pyro.sample("answers", tables), pyro.sample("slips", tables)
    with pyro.plate("targets", 100):
        pyro.sample("target", _letter(task))
    with pyro.plate("unprompted_outputs", 100):
        pyro.sample("unprompted", _letter(general))
    with pyro.plate("anchors", anchors):
        anchor = pyro.sample("anchor", _letter(task))
    counts = torch.nn.functional.one_hot(anchor, letters).sum(-3, keepdim=True)
    prompt = pyro.sample("prompt", dist.Categorical(logits=counts.double()).to_event(1))
    with pyro.plate("outputs", outputs):
        output = pyro.sample("output", dist.Categorical(_rows_of(answers, prompt)).to_event(1))
        pyro.sample("synthetic", dist.Categorical(_rows_of(slips, output)).to_event(1))


def letters_exact(world: World, knobs: Knobs) -> dict[str, float]:
    """Truth of `letters`, by enumeration."""
    count, anchors, outputs = (int(knobs[k]) for k in ("letters", "anchors", "outputs"))
    of_anchors, of_outputs = data_sets(count, anchors), data_sets(count, outputs)
    chain = chains.FiniteChain(
        product(world["task"], of_anchors),
        torch.nn.functional.one_hot(of_anchors, count).sum(1).double().softmax(-1),
        torch.ones(1, dtype=torch.float64),
        product(world["answers"], of_outputs)[:, None],
        world["slips"][of_outputs[:, None], of_outputs[None]].prod(-1),
        most_frequent(of_outputs, count),
        most_frequent(of_anchors, count),
    )
    general = world["general"]
    return letters_truth(chain, of_anchors, of_outputs, world["task"], general, "absent")


def off_task(anchors: int = 1, outputs: int = 3, letters: int = 4, filtered: float = 0.6) -> None:
    """The last letter is no letter of the task; curation replaces it where it sees it."""
    on_task = dist.Dirichlet(torch.ones(letters - 1))
    task = pyro.sample("task", on_task)
    share = pyro.sample("share", dist.Beta(2 * torch.ones(1), 4.0).to_event(1))
    tables = dist.Dirichlet(torch.ones(letters - 1, letters - 1)).to_event(1)
    answers = pyro.sample("answers", tables)
    rewritten = pyro.sample("rewritten", on_task)
    with pyro.plate("targets", 100):
        pyro.sample("target", _letter(_beside(task, torch.zeros_like(share))))
    with pyro.plate("unprompted_outputs", 100):
        pyro.sample("unprompted", _letter(_beside(rewritten, share)))
    with pyro.plate("anchors", anchors):
        anchor = pyro.sample("anchor", _letter(task))
        prompt = pyro.deterministic("prompt", (anchor + 1) % (letters - 1), event_dim=1)
    of_prompt = _beside(_rows_of(answers, prompt[..., :1, :]), share.unsqueeze(-2))
    curation = _filter(rewritten, filtered)
    with pyro.plate("outputs", outputs):
        output = pyro.sample("output", dist.Categorical(of_prompt).to_event(1))
        pyro.sample("synthetic", dist.Categorical(_rows_of(curation, output)).to_event(1))


def off_task_exact(world: World, knobs: Knobs) -> dict[str, float]:
    """Truth of `off_task`, by enumeration."""
    count, anchors, outputs = (int(knobs[k]) for k in ("letters", "anchors", "outputs"))
    of_anchors, of_outputs = data_sets(count - 1, anchors), data_sets(count, outputs)
    share = world["share"]
    own = index_of((of_anchors + 1) % (count - 1), count - 1)
    first = data_sets(count - 1, anchors)[:, 0]  # the letter of each prompt that is answered
    of_prompt = _beside(world["answers"], share)[first]
    curation = _filter(world["rewritten"], float(knobs["filtered"]))
    chain = chains.FiniteChain(
        product(world["task"], of_anchors),
        torch.eye(len(of_anchors), dtype=torch.float64)[own],
        torch.ones(1, dtype=torch.float64),
        product(of_prompt, of_outputs)[:, None],
        curation[of_outputs[:, None], of_outputs[None]].prod(-1),
        most_frequent(of_outputs, count),
        most_frequent(of_anchors, count),
    )
    task = _beside(world["task"], torch.zeros_like(share))
    general = _beside(world["rewritten"], share)
    return letters_truth(chain, of_anchors, of_outputs, task, general, "absent")


def monotone(anchors: int = 4, outputs: int = 6, dimension: int = 2, noise: float = 0.3) -> None:
    """Positive rows: prompts are squares, answers go with their geometric mean."""
    centre = pyro.sample("centre", dist.Normal(torch.zeros(dimension), 1.0).to_event(1))
    general = pyro.sample("general", dist.Normal(torch.zeros(dimension), 1.0).to_event(1))
    with pyro.plate("targets", 100):
        pyro.sample("target", dist.LogNormal(centre, TASK).to_event(1))
    with pyro.plate("unprompted_outputs", 100):
        pyro.sample("unprompted", dist.LogNormal(general, GENERATOR).to_event(1))
    with pyro.plate("anchors", anchors):
        anchor = pyro.sample("anchor", dist.LogNormal(centre, TASK).to_event(1))
        prompt = pyro.deterministic("prompt", anchor.square(), event_dim=1)
    level = 0.5 * general + 0.5 * prompt.log().mean(-2, keepdim=True)
    with pyro.plate("outputs", outputs):
        output = pyro.sample("output", dist.LogNormal(level, OWN).to_event(1))
        pyro.sample("synthetic", dist.LogNormal(output.log(), noise).to_event(1))


def monotone_exact(world: World, knobs: Knobs) -> dict[str, float]:
    """Truth of `monotone`: that of its logarithms, entropies with the volume of the map."""
    anchors, outputs = int(knobs["anchors"]), int(knobs["outputs"])
    centre, general = world["centre"].double(), world["general"].double()
    size, mean = len(centre), 0.5 * general + centre
    of_anchor, of_output, of_curation = _noises(size, anchors, outputs, outputs)
    anchor = TASK * of_anchor
    output = _mean_of(anchor, size, outputs) + OWN * of_output
    eye = torch.eye(size).double()
    # log prompt = 2 log anchor, and e^x has the volume x.
    volume = {
        "anchor": anchors * float(centre.sum()),
        "prompt": anchors * float(2 * centre.sum()),
        "output": outputs * float(mean.sum()),
        "synthetic": outputs * float(mean.sum()),
    }
    return normal_truth(
        NormalChain(
            sites={
                "anchor": anchor,
                "prompt": 2 * anchor,
                "output": output,
                "synthetic": output + float(knobs["noise"]) * of_curation,
            },
            own=torch.arange(anchor.shape[1]) >= anchors * size,
            anchors=anchors,
            outputs=outputs,
            task=(centre, TASK**2 * eye),
            generator=(general, GENERATOR**2 * eye),
            synthetic_mean=mean,
            factor="absent",
            volume=volume,
        )
    )


def factor_above(
    anchors: int = 4, outputs: int = 6, dimension: int = 2, noise: float = 0.3
) -> None:
    """The generator's mood is drawn once for a data set, above its answers."""
    centre = pyro.sample("centre", dist.Normal(torch.zeros(dimension), 1.0).to_event(1))
    with pyro.plate("targets", 100):
        pyro.sample("target", dist.Normal(centre, TASK).to_event(1))
    with pyro.plate("unprompted_outputs", 100):
        pyro.sample("unprompted", dist.Normal(torch.zeros(dimension), GENERATOR).to_event(1))
    with pyro.plate("anchors", anchors):
        anchor = pyro.sample("anchor", dist.Normal(centre, TASK).to_event(1))
        prompt = pyro.sample("prompt", dist.Normal(anchor, PROMPT_NOISE).to_event(1))
    own = dist.Normal(torch.zeros(1, dimension), FACTOR).to_event(1)
    mood = pyro.sample("model_factor", own)
    with pyro.plate("outputs", outputs):
        answer = prompt.mean(-2, keepdim=True) + mood
        output = pyro.sample("output", dist.Normal(answer, OWN).to_event(1))
        pyro.sample("synthetic", dist.Normal(output, noise).to_event(1))


def factor_above_exact(world: World, knobs: Knobs) -> dict[str, float]:
    """Truth of `factor_above`, by log-determinants."""
    anchors, outputs = int(knobs["anchors"]), int(knobs["outputs"])
    centre = world["centre"].double()
    size = len(centre)
    rows = (anchors, anchors, 1, outputs, outputs)
    of_anchor, of_prompt, of_factor, of_output, of_curation = _noises(size, *rows)
    anchor, factor = TASK * of_anchor, FACTOR * of_factor
    prompt = anchor + PROMPT_NOISE * of_prompt
    output = _mean_of(prompt, size, outputs) + factor.repeat(outputs, 1) + OWN * of_output
    eye = torch.eye(size).double()
    return normal_truth(
        NormalChain(
            sites={
                "anchor": anchor,
                "prompt": prompt,
                "model_factor": factor,
                "output": output,
                "synthetic": output + float(knobs["noise"]) * of_curation,
            },
            own=torch.arange(anchor.shape[1]) >= (2 * anchors + 1) * size,
            anchors=anchors,
            outputs=outputs,
            task=(centre, TASK**2 * eye),
            generator=(torch.zeros(size).double(), GENERATOR**2 * eye),
            synthetic_mean=centre,
            factor="above",
        )
    )


def log_mean(rows: Tensor) -> Tensor:
    """The mean of the logarithms of rows."""
    return rows.log().mean(-2)


def _letter(table: Tensor) -> dist.Independent:
    return dist.Categorical(table.unsqueeze(-2)).to_event(1)


def _rows_of(table: Tensor, index: Tensor) -> Tensor:
    """table[index] of tables (…, 1, K, L) and letters (…, rows, 1): (…, rows, 1, L)."""
    chosen = torch.nn.functional.one_hot(index.squeeze(-1).long(), table.shape[-2])
    return chosen.to(table.dtype).unsqueeze(-2) @ table


def _beside(table: Tensor, share: Tensor) -> Tensor:
    """A table with a further letter of this share (…, 1)."""
    whole = torch.broadcast_shapes(table.shape[:-1], share.shape[:-1])
    kept = table * (1 - share)
    return torch.cat([kept, share.expand(*whole, 1)], -1)


def _filter(rewritten: Tensor, filtered: float) -> Tensor:
    """From a letter to what curation makes of it: (…, K, K)."""
    count = rewritten.shape[-1] + 1
    kept = torch.eye(count, dtype=rewritten.dtype)[:-1].expand(*rewritten.shape[:-1], -1, -1)
    stays = torch.full_like(rewritten[..., :1], 1 - filtered)
    seen = torch.cat([filtered * rewritten, stays], -1)
    return torch.cat([kept, seen.unsqueeze(-2)], -2)


def _noises(size: int, *rows: int) -> tuple[Tensor, ...]:
    """One block of standard normals for each site: (rows · d, all)."""
    sizes = [count * size for count in rows]
    return torch.eye(sum(sizes)).double().split(sizes)


def _mean_of(prompts: Tensor, size: int, outputs: int) -> Tensor:
    """The mean of the prompt's rows, once for every output."""
    return prompts.unflatten(0, (-1, size)).mean(0).repeat(outputs, 1)
