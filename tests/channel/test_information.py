"""Information of log-probabilities against finite sums, derivatives and another implementation."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

import rbpp
from benchmarks.log_probabilities import Letters, held
from rbpp.channel.contrast import contrast
from rbpp.channel.information import Mean, bootstrap_means
from rbpp.channel.log_probabilities import log_probabilities
from rbpp.theory.information import contrastive_bounds


def informed(*given, per_token=False, draws=1000, **more):
    data = log_probabilities(*given, **more)
    return rbpp.channel_information(data, per_token=per_token, draws=draws)


def drawn(prompts=40, outputs=2, others=None, seed=0, letters=None, **more):
    letters = letters or Letters()
    return letters.draw(prompts, outputs, np.random.default_rng(seed), others) | more


def test_sides_of_one_output_a_prompt_are_the_contrastive_bounds():
    data = log_probabilities(**drawn(outputs=1))
    found = contrast(data, torch.full((1, len(data)), 1 / len(data)).double())
    lower, upper = contrastive_bounds(data.log_prob)
    assert float((data.own - found.joint.log_prob).mean()) == pytest.approx(lower.value.item())
    assert float((data.own - found.marginal.log_prob).mean()) == pytest.approx(upper.value.item())
    assert found.limit == pytest.approx(math.log(40))


@pytest.mark.parametrize("unprompted", [False, True])
def test_slopes_are_derivatives_by_the_shares(unprompted):
    """Joint and marginal written once more, as plain sums, and differentiated by autograd."""
    given = drawn(prompts=12, outputs=3)
    uneven = np.r_[0:20, 21:36]  # not all prompts have as many outputs
    given = {name: value[uneven] for name, value in given.items()}
    if unprompted:
        given["log_prob_unprompted"] = np.full(len(uneven), -1.5)
    data = log_probabilities(**given)
    weights = torch.as_tensor(np.random.default_rng(4).random((2, len(data))))
    weights /= weights.sum(-1, keepdim=True)
    found = contrast(data, weights)
    shares = torch.bincount(data.prompt).double() / len(data)
    log_share = shares.log().requires_grad_(True)
    probability = (data.log_prob + log_share).exp()
    own = torch.nn.functional.one_hot(data.prompt, 12).bool()
    mass = log_share.exp().expand_as(probability)
    joint = (probability.sum(-1) / mass.sum(-1)).log()
    rest = probability.masked_fill(own, 0).sum(-1) / mass.masked_fill(own, 0).sum(-1)
    marginal = (found.mixed * math.exp(-1.5) + (1 - found.mixed) * rest).log()
    torch.testing.assert_close(found.joint.log_prob, joint.detach())
    torch.testing.assert_close(found.marginal.log_prob, marginal.detach())
    for values, slopes in ((joint, found.joint.slope), (marginal, found.marginal.slope)):
        for weight, slope in zip(weights, slopes, strict=True):
            (expected,) = torch.autograd.grad((weight * values).sum(), log_share, retain_graph=True)
            torch.testing.assert_close(slope, expected)


def test_the_unprompted_share_is_the_best_one():
    data = log_probabilities(**drawn(log_prob_unprompted=np.log(np.full(80, 1 / 6))))
    weights = torch.full((1, 80), 1 / 80).double()
    found = contrast(data, weights)
    alone = contrast(replace(data, unprompted=None), weights)

    def mean(share):
        mixed = share * data.unprompted.exp() + (1 - share) * alone.marginal.log_prob.exp()
        return mixed.log().mean()

    best = float(mean(found.mixed))
    assert all(best >= float(mean(share)) - 1e-8 for share in np.linspace(0, 1, 21))
    assert best == pytest.approx(float(found.marginal.log_prob.mean()))


@pytest.mark.parametrize("outputs", [1, 3])
def test_all_other_prompts_by_name_are_the_full_matrix(outputs):
    full = drawn(prompts=12, outputs=outputs)
    prompt, matrix = full["prompt"], full["log_prob"]
    others = np.stack([np.delete(np.arange(12), own) for own in prompt])
    own = matrix[np.arange(len(prompt)), prompt][:, None]
    named = np.concatenate([own, np.take_along_axis(matrix, others, 1)], 1)
    one = informed(**full, draws=20)
    other = informed(named, prompt, others=others, draws=20)
    for name, term in one.terms.items():
        torch.testing.assert_close(term.value, other.terms[name].value)
    assert float(other.terms["information_prompt_output"].lower.standard_error.max()) == 0


def test_the_order_of_prompts_and_outputs_changes_nothing_but_names():
    given = drawn(prompts=10)
    order, names = (
        np.random.default_rng(1).permutation(20),
        np.random.default_rng(2).permutation(10),
    )
    moved = {
        "log_prob": given["log_prob"][order][:, np.argsort(names)],
        "prompt": names[given["prompt"]][order],
    }
    one, other = (informed(**one, draws=4000) for one in (given, moved))
    surprise = one.rows["surprise"].to_numpy()[order]
    np.testing.assert_allclose(surprise, other.rows["surprise"])
    torch.testing.assert_close(
        one.prompt_information[torch.as_tensor(order)], other.prompt_information
    )


@pytest.mark.parametrize(
    ("prompts", "outputs", "others"), [(60, 1, None), (60, 3, None), (80, 2, 12)]
)
def test_intervals_hold_the_truth_in_200_replications(prompts, outputs, others, margin):
    for count in held(Letters(), prompts, outputs, others).values():
        # They hold it in some 92 % and more: three standard errors of 200 replications below that.
        margin(count / 200 - (0.92 - 3 * math.sqrt(0.92 * 0.08 / 200)))


def test_intervals_of_six_prompts_hold_their_mean(margin):
    """Of a normal with the variance of six values 88 % are between quantiles of 94 %."""
    weights, prompt = torch.full((6,), 1 / 6).double(), torch.arange(6)
    found = 0
    for seed in range(600):
        random = np.random.default_rng(seed)
        mean = Mean(torch.as_tensor(random.normal(size=6)), weights)
        drawn = bootstrap_means({"x": mean}, prompt, 400, random)["x"]
        low, high = np.quantile(drawn.numpy(), [0.03, 0.97])
        found += low <= 0 <= high
    margin(found / 600 - 0.92)


def test_a_share_of_no_output_is_not_surely_zero():
    weights, prompt = torch.full((10,), 0.1).double(), torch.arange(10)
    none = Mean(torch.zeros(10).double(), weights, share=True)
    all_of_them = Mean(torch.ones(10).double(), weights, share=True)
    random = np.random.default_rng(0)
    drawn = bootstrap_means({"none": none, "all": all_of_them}, prompt, 4000, random)
    # Half a prompt of each kind beside ten: Jeffreys' upper limit of 94 % for none of ten is 0.17.
    assert 0.1 < float(drawn["none"].quantile(0.94)) < 0.3
    assert 0.7 < float(drawn["all"].quantile(0.06)) < 0.9
    assert float(drawn["none"].min()) >= 0
    assert float(drawn["all"].max()) <= 1


@pytest.mark.parametrize("others", [None, 6])
def test_the_truth_lies_between_the_mean_sides(others, margin):
    letters, sides = Letters(), []
    for seed in range(200):
        data = log_probabilities(**drawn(20, 1, others, seed, letters))
        found = contrast(data, torch.full((1, 20), 1 / 20).double())
        both = found.joint.log_prob, found.marginal.log_prob
        sides.append([float((data.own - one).mean()) for one in both])
    lower, upper = np.mean(sides, 0)
    error = np.std(sides, 0) / math.sqrt(200)
    margin(letters.information - lower + 3 * error[0])
    margin(upper - letters.information + 3 * error[1])
    margin(upper - lower - 0.03)


def test_the_error_by_the_choice_of_others_is_their_spread(margin):
    letters, others = Letters(), 25
    full = drawn(60, 1, None, 5, letters)
    prompt, matrix = full["prompt"], full["log_prob"]
    own = matrix[np.arange(60), prompt][:, None]
    random = np.random.default_rng(7)
    found = []
    for _ in range(200):
        ahead = np.argsort(random.random((60, 59)), 1)[:, :others]
        index = ahead + (ahead >= prompt[:, None])
        chosen = np.concatenate([own, np.take_along_axis(matrix, index, 1)], 1)
        data = log_probabilities(chosen, prompt, others=index)
        one = contrast(data, torch.full((1, 60), 1 / 60).double())
        sides = one.joint, one.marginal
        values = (float((data.own - side.log_prob).mean()) for side in sides)
        found.append([*values, *(float(side.error[0]) for side in sides)])
    lower, upper, lower_error, upper_error = np.array(found).T
    margin(0.2 - abs(np.median(lower_error) / lower.std() - 1))
    margin(0.2 - abs(np.median(upper_error) / upper.std() - 1))


def long_outputs(prompts=20, others=True, **more):
    """Outputs of some fifty nats that no other prompt would give."""
    random = np.random.default_rng(0)
    log_prob = -random.uniform(90, 110, (prompts, prompts))
    log_prob[np.arange(prompts), np.arange(prompts)] = -random.uniform(40, 60, prompts)
    return {"log_prob": log_prob if others else log_prob.diagonal()} | more


def test_a_saturated_lower_side_leaves_no_value():
    found = informed(**long_outputs())
    terms = found.table(per_row=True)
    for name in ("information_prompt_output", "entropy_output"):
        assert terms[name]["mean"] is None
    assert terms["information_prompt_output_lower"]["mean"] == pytest.approx(math.log(20), abs=1e-3)
    assert 30 < terms["information_prompt_output_upper"]["mean"] < 60
    assert "at its limit" in found.text()
    assert terms["prompting_factor"]["mean"] == pytest.approx(1, abs=1e-3)
    (check,) = [check for check in found.checks if "leave it a value" in check.statement]
    assert check.verdict == "undecided"


def test_a_lower_side_at_its_limit_does_not_spread():
    """Whatever prompts there are, each output is told from its M others: log(1 + M) exactly."""
    random = np.random.default_rng(0)
    ahead = np.argsort(random.random((60, 29)), 1)[:, :4]
    prompt = np.repeat(np.arange(30), 2)
    log_prob = np.full((60, 5), -500.0)
    log_prob[:, 0] = -random.uniform(40, 60, 60)
    others = ahead + (ahead >= prompt[:, None])
    found = informed(log_prob, prompt, others=others)
    lower = found.terms["information_prompt_output"].lower.value / 60
    torch.testing.assert_close(lower, torch.full_like(lower, math.log(5)))


def test_an_unprompted_model_is_the_upper_side_where_other_prompts_say_nothing():
    found = informed(**long_outputs(log_prob_unprompted=np.full(20, -60.0)))
    upper = found.table(per_row=True)["information_prompt_output_upper"]["mean"]
    expected = float((found.data.own + 60).mean())
    assert upper == pytest.approx(expected, abs=0.5)
    assert found.settings["unprompted_share"] > 0.9


def test_outputs_that_are_impossible_elsewhere_have_no_upper_side_alone():
    given = long_outputs()
    given["log_prob"][0, 1:] = -math.inf
    found = informed(**given)
    assert found.table()["information_prompt_output_upper"]["mean"] is None
    assert "impossible under every other prompt" in found.text()
    with_model = informed(**given, log_prob_unprompted=np.full(20, -70.0))
    assert with_model.table()["information_prompt_output_upper"]["mean"] > 0


def test_the_sides_of_few_prompts_leave_no_value():
    few, enough = (informed(**drawn(prompts=prompts, outputs=4)) for prompts in (9, 10))
    assert few.table()["information_prompt_output"]["mean"] is None
    assert "come from 9 prompts, fewer than 10" in few.refused
    assert enough.table()["information_prompt_output"]["mean"] > 0
    named = informed(**drawn(prompts=40, outputs=2, others=8))
    assert named.table()["entropy_output"]["mean"] is None


def test_the_own_prompt_alone_gives_the_gain():
    found = informed(**long_outputs(others=False))
    assert set(found.terms) == {"information_gain"}
    assert "not known" in found.text()
    both = informed(**long_outputs(others=False), log_prob_unprompted=[-70.0] * 20)
    assert both.table(per_row=True)["information_prompt_output_lower"]["mean"] == 0
    assert "no other prompt" in both.refused


def test_what_a_filter_removed_adds_up():
    given = drawn(60, 2)
    kept = np.arange(120) % 3 > 0
    found = informed(**given, kept=kept)
    table = found.table()
    surprise = found.surprise.numpy()
    assert table["information_gain_kept"]["mean"] == pytest.approx(surprise[kept].sum(), rel=0.05)
    assert table["information_gain_dropped"]["mean"] == pytest.approx(
        surprise[~kept].sum(), rel=0.05
    )
    assert table["kept_share"]["mean"] == pytest.approx(2 / 3, abs=0.02)
    row = found.table(per_row=True)
    assert row["information_gain_kept"]["mean"] == pytest.approx(
        table["information_gain_kept"]["mean"] / 80
    )
    assert all(informed(**given, kept=True | kept).rows["kept"])


def test_units_are_per_data_set_row_and_token():
    tokens = np.random.default_rng(3).integers(2, 9, 80)
    found = informed(**drawn(), tokens=tokens)
    whole, row = found.table(), found.table(per_row=True)
    bits = replace(found, per_token=True).table(units="bits")
    gain = found.terms["information_gain"].value
    each = found.terms["tokens_per_output"].value
    assert row["information_gain"]["mean"] == pytest.approx(whole["information_gain"]["mean"] / 80)
    assert bits["information_gain"]["mean"] == pytest.approx(
        float((gain / 80 / each).mean()) / math.log(2)
    )
    assert float(each.mean()) == pytest.approx(tokens.mean(), rel=0.05)
    heads = [found.text(), found.text(per_row=True), replace(found, per_token=True).text()]
    for text, per in zip(heads, ("data set", "output", "token"), strict=True):
        assert text.startswith(f"Information in nats per {per}: 80 outputs of 40 prompts")
    assert "nats per token" in heads[2]
    of_token = found.surprise.sum() / tokens.sum()
    assert f"nats, {of_token:.3g} a token." in heads[0]
    assert "Information in bits" in found.text(units="bits")


def test_outputs_that_ignore_or_copy_their_prompt_are_named():
    given = long_outputs()
    given["log_prob"][3] = -50.0  # as likely under every prompt
    given["log_prob"][4, 4] = -1.0
    rows = informed(**given).rows
    assert rows.index[rows["ignores_prompt"]].tolist() == [3]
    assert rows.index[rows["determined_by_prompt"]].tolist() == [4]
    assert rows["prompt_information_upper"][3] == pytest.approx(0, abs=1e-6)


def test_outputs_of_another_distribution_are_seen():
    given = drawn(200, 1)
    verdicts = {}
    for name, shift in (("own", 0.0), ("other", 0.8)):
        data = given | {"path_entropy": given["path_entropy"] + shift}
        checks = informed(**data).checks
        verdicts[name] = next(c.verdict for c in checks if "drawn from" in c.statement)
    assert verdicts == {"own": "holds", "other": "violated"}


def test_few_prompts_or_one_that_outweighs_the_others_are_seen():
    def verdict(counts):
        prompt = np.repeat(np.arange(len(counts)), counts)
        log_prob = -np.random.default_rng(0).exponential(size=(len(prompt), len(counts)))
        checks = informed(log_prob, prompt, draws=5).checks
        return next(check for check in checks if "at least 20 prompts" in check.statement)

    assert verdict([2] * 20).verdict == "holds"
    assert verdict([1] * 19).verdict == "undecided"
    assert verdict([100] + [1] * 39).measured["equal_prompts"] < 2
    assert "40, which tell as much as 2 with" in verdict([100] + [1] * 39).message


def test_impossible_outputs_are_left_out_by_name_only():
    given = long_outputs()
    given["log_prob"][[2, 7], [2, 7]] = -math.inf
    with pytest.raises(ValueError, match="rows 2, 7: it was not drawn from this distribution"):
        informed(**given)
    found = informed(**given, leave_out_impossible=True)
    assert found.rows["row"].tolist() == [row for row in range(20) if row not in (2, 7)]
    assert "2 of 20" in found.text()
    assert "2 prompts have no output" in found.text()


BAD = {
    "positive": ({"log_prob": [[0.5, -1], [-1, -1]]}, "at most 0; got 0.5 in row 0, column 0"),
    "nan": ({"log_prob": [[math.nan, -1], [-1, -1]]}, "are numbers; got nan in row 0, column 0"),
    "infinite": ({"log_prob": [[math.inf, -1], [-1, -1]]}, "at most 0; got inf"),
    "sides": ({"log_prob": [[-1, -1, -1], [-1, -1, -1]]}, "Expected `prompt`.*sides that differ"),
    "words": ({"log_prob": [["a", "b"]]}, "log_prob as an array of numbers"),
    "ragged": ({"log_prob": [[-1, -2], [-1]]}, "rows that differ in length"),
    "empty": ({"log_prob": np.empty((0, 2))}, "got shape"),
    "range": ({"log_prob": -np.ones((2, 2)), "prompt": [0, 2]}, "at most 1.*got 2 in row 1"),
    "fraction": ({"log_prob": -np.ones((2, 2)), "prompt": [0, 0.5]}, "indices from 0 in prompt"),
    "length": ({"log_prob": -np.ones((2, 2)), "prompt": [0]}, r"prompt of shape \(2,\)"),
    "one": ({"log_prob": -np.ones((2, 2)), "prompt": [1, 1]}, "at least 2 prompts"),
    "others": (
        {"log_prob": -np.ones((2, 3)), "prompt": [0, 1], "others": [[1], [0]]},
        r"\(outputs, 1 \+ M\)",
    ),
    "own": (
        {"log_prob": -np.ones((2, 2)), "prompt": [0, 1], "others": [[1], [1]]},
        "other prompts than the output's own; got 1 in row 1",
    ),
    "twice": (
        {"log_prob": -np.ones((2, 3)), "prompt": [0, 1], "others": [[1, 2], [2, 2]]},
        "one twice in row 1",
    ),
    "tokens": ({"log_prob": -np.ones((2, 2)), "tokens": [3, 0]}, "got 0 in row 1 of tokens"),
    "unprompted": (
        {"log_prob": -np.ones((2, 2)), "log_prob_unprompted": [-1, 1]},
        "got 1 in row 1 of log_prob_unprompted",
    ),
    "kept": ({"log_prob": -np.ones((2, 2)), "kept": [0, 2]}, "true or false in kept; got 2"),
    "per token": ({"log_prob": -np.ones((2, 2)), "per_token": True}, "Expected `tokens`"),
    "draws": ({"log_prob": -np.ones((2, 2)), "draws": 1}, "draws to be a whole number of 2"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused_in_one_line(name):
    given, message = BAD[name]
    with pytest.raises(ValueError, match=message) as caught:
        informed(**given)
    assert "\n" not in str(caught.value)


def test_rounding_above_zero_is_zero():
    found = rbpp.channel_information([[1e-7, -1], [-1, -0.5]])
    assert found.surprise.tolist() == [0.0, 0.5]


def test_json_has_every_number_and_no_nan():
    found = json.loads(informed(**long_outputs()).to_json())
    assert found["terms"]["information_prompt_output"]["mean"] is None
    assert found["settings"]["others"] == 19
