"""Shared components, sparse weights, and a prompt that pulls the generator to the anchors."""

import pytest
import torch

from rbpp.assessment.assess import assess
from rbpp.assessment.share_terms import find_shares
from rbpp.assessment.sources import read_sources
from rbpp.assessment.weighted_rows import Draws
from rbpp.inference_data import term_table
from rbpp.processes.process import load_process
from rbpp.processes.simulation import simulate

# Shares of the rows: below the first a component counts as absent, above the second as present.
ABSENT, PRESENT = 0.004, 0.03


def test_rows_of_all_sources_come_from_the_shared_components():
    found = simulate(load_process("sources", components=4, dimension=3), worlds=2, seed=1)
    means, scales = found.world["means"], found.world["scales"]
    for site in ("anchor", "target", "output", "unprompted", "synthetic"):
        rows = found.sites[site]
        assert rows.shape[-1] == 3
        near = (rows.flatten(1, -2).unsqueeze(-2) - means.reshape(2, 1, 4, 3)).abs()
        # Each row is within 6 of its component's standard deviations in every coordinate.
        inside = (near < 6 * scales.reshape(2, 1, 4, 3)).all(-1).any(-1)
        assert inside.all()


@pytest.mark.parametrize("guidance", [0.0, 1.0])
def test_guidance_pulls_the_outputs_to_the_anchors(guidance, margin):
    counts = {"anchors": 500, "unprompted_outputs": 500, "outputs": 1500}
    process = load_process("sources", guidance=guidance, concentration=0.3, extent=30.0, **counts)
    found = simulate(process, worlds=1, seed=3)
    means = found.world["means"].reshape(-1, 2)

    def shares(site):
        nearest = torch.cdist(found.sites[site].reshape(-1, 2), means).argmin(-1)
        return torch.bincount(nearest, minlength=len(means)) / len(nearest)

    other = "anchor" if guidance else "unprompted"
    # Of two samples of one distribution over six components TV <= sqrt(chi² (1/500 + 1/1500)) / 2,
    # with five degrees of freedom, by Cauchy and Schwarz: 0.15 is a chi² of 34, three in a
    # million. Against the other source it is 0.3 and more.
    margin(0.15 - float(0.5 * (shares("output") - shares(other)).abs().sum()))


def test_noise_is_added_to_the_outputs(margin):
    found = simulate(load_process("sources", noise=0.5), worlds=1, seed=0)
    moved = found.sites["synthetic"] - found.sites["output"]
    # The relative error of a standard deviation of n numbers is 1 / √(2 n).
    margin(4.5 - abs(float(moved.std()) / 0.5 - 1) * (2 * moved.numel()) ** 0.5)


@pytest.mark.parametrize("knobs", [{"components": 0}, {"guidance": 1.5}])
def test_knobs_out_of_range_are_refused(knobs):
    with pytest.raises(ValueError, match="guidance in"):
        simulate(load_process("sources", **knobs))


def test_assess_recovers_what_the_weights_say():
    """Off-task mass of the generator: its weight where the task has next to none."""
    process = load_process("sources", guidance=0.3, extent=20.0, concentration=0.3, targets=400)
    found = simulate(process, worlds=1, seed=5)
    rows = {site: found.sites[site].reshape(-1, 2).double() for site in found.sites}
    means = found.world["means"].reshape(-1, 2).double()
    task = found.world["target_weights"].reshape(-1)
    nearest = torch.cdist(rows["synthetic"], means).argmin(-1)
    truth = (task[nearest] < 0.02).double().mean().item()
    assessed = assess(rows["anchor"], rows["synthetic"], target=rows["target"], chains=2, draws=60)
    term = term_table(assessed.idata)["irrelevant_share"]
    assert term["hdi_low"] - 0.05 <= truth <= term["hdi_high"] + 0.05


@pytest.mark.parametrize(
    ("count", "least"), [(10, 8), pytest.param(30, 25, marks=pytest.mark.slow)]
)
def test_shares_of_many_worlds_are_covered(count, least):
    """At least and at most hold the off-task and the missed shares.

    Worlds are those in which a component is clearly in a
    source or not, and no source has over four times the other's share of a component: where one has
    ten times as much, its excess counts as foreign, and coverage falls to a half.
    """
    process = load_process(
        "sources",
        guidance=0.3,
        extent=20.0,
        concentration=0.6,
        dimension=4,
        targets=400,
        outputs=300,
    )
    found = simulate(process, worlds=600, seed=1)
    held, worlds = {"irrelevant_share": 0, "uncovered_share": 0}, 0
    for world, means in enumerate(found.world["means"].reshape(600, -1, 4).double()):
        rows = {site: found.sites[site][world].reshape(-1, 4).double() for site in found.sites}
        task, made = (_component_shares(rows[site], means) for site in ("target", "synthetic"))
        if torch.pdist(means).min() < 6 or not _clear(task, made):
            continue
        if worlds == count:
            break
        worlds += 1
        sources = read_sources({s: rows[s] for s in ("target", "synthetic")})
        limits = find_shares(sources, Draws(200, world)).limits
        truths = {
            "irrelevant_share": made[task < ABSENT].sum(),
            "uncovered_share": task[made < ABSENT].sum(),
        }
        for name, truth in truths.items():
            held[name] += limits[f"{name}_at_least"] <= truth <= limits[f"{name}_at_most"]
    assert worlds == count
    assert min(held.values()) >= least, held


def _component_shares(rows, means):
    return torch.bincount(torch.cdist(rows, means).argmin(-1), minlength=len(means)) / len(rows)


def _clear(task, made):
    for share in (task, made):
        if ((share > ABSENT) & (share < PRESENT)).any():
            return False
    both = (task >= PRESENT) & (made >= PRESENT)
    return bool(((task / made)[both].log().abs() <= 1.39).all())
