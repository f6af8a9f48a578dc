"""Processes as a user would write them, none of them shipped, for the tests of the terms."""

import pyro
import pyro.distributions as dist
import torch


def recipe(rows: int = 6, answers: int = 8, typos: float = 0.4):
    """Answers around the anchors' mean, retyped with errors; no e_M, no D_M."""
    taste = pyro.sample("taste", dist.Normal(torch.zeros(2), 1.0).to_event(1))
    with pyro.plate("targets", 30):
        pyro.sample("target", dist.Normal(taste, 1.0).to_event(1))
    with pyro.plate("anchors", rows):
        anchor = pyro.sample("anchor", dist.Normal(taste, 1.0).to_event(1))
    prompt = pyro.deterministic("prompt", anchor.mean(-2, keepdim=True), event_dim=1)
    with pyro.plate("outputs", answers):
        output = pyro.sample("output", dist.Normal(prompt, 1.0).to_event(1))
        pyro.sample("synthetic", dist.Normal(output, typos).to_event(1))


def factor_above(rows: int = 5, answers: int = 6):
    """e_M is sampled above the output, shared by its rows, which have noise of their own."""
    level = pyro.sample("level", dist.Normal(torch.zeros(1), 1.0).to_event(1))
    with pyro.plate("anchors", rows):
        anchor = pyro.sample("anchor", dist.Normal(level, 1.0).to_event(1))
    prompt = pyro.deterministic("prompt", anchor)
    mood = pyro.sample("model_factor", dist.Normal(torch.zeros(1), 0.7).to_event(1))
    with pyro.plate("outputs", answers):
        centre = prompt.mean(-2, keepdim=True) + mood
        output = pyro.sample("output", dist.Normal(centre, 0.8).to_event(1))
        pyro.deterministic("synthetic", output, event_dim=1)


def drawn_letter(anchors: int = 3, letters: int = 3):
    """All sites are letters, and the prompt is drawn given the anchors."""
    bias = pyro.sample("bias", dist.Dirichlet(torch.ones(letters)))
    with pyro.plate("anchors", anchors):
        anchor = pyro.sample("anchor", dist.Categorical(bias.unsqueeze(-2)).to_event(1))
    counts = torch.nn.functional.one_hot(anchor, letters).sum(-3, keepdim=True)
    prompt = pyro.sample("prompt", dist.Categorical(logits=counts.double()).to_event(1))
    slips = 0.8 * torch.eye(letters) + 0.2 / letters
    with pyro.plate("outputs", 4):
        output = pyro.sample("output", dist.Categorical(slips[prompt]).to_event(1))
        pyro.sample("synthetic", dist.Categorical(slips[output]).to_event(1))


def echo():
    """The output repeats the prompt exactly: infinitely much information."""
    with pyro.plate("anchors", 4):
        anchor = pyro.sample("anchor", dist.Normal(torch.zeros(2), 1.0).to_event(1))
    prompt = pyro.deterministic("prompt", anchor)
    with pyro.plate("outputs", 4):
        output = pyro.deterministic("output", prompt, event_dim=1)
        pyro.sample("synthetic", dist.Normal(output, 0.1).to_event(1))


def rounded():
    """Curation rounds: a function of the output that is no copy, and whose density is not given."""
    with pyro.plate("anchors", 4):
        anchor = pyro.sample("anchor", dist.Normal(torch.zeros(1), 1.0).to_event(1))
    prompt = pyro.deterministic("prompt", anchor)
    with pyro.plate("outputs", 5):
        centre = prompt.mean(-2, keepdim=True)
        output = pyro.sample("output", dist.Normal(centre, 1.0).to_event(1))
        pyro.deterministic("synthetic", output.round(), event_dim=1)


def without_prompt():
    """Not a process: a site is missing."""
    with pyro.plate("anchors", 4):
        anchor = pyro.sample("anchor", dist.Normal(torch.zeros(1), 1.0).to_event(1))
    with pyro.plate("outputs", 4):
        pyro.sample("output", dist.Normal(anchor, 1.0).to_event(1))


def noisy_prompt():
    """The prompt is sampled given the anchors."""
    with pyro.plate("anchors", 4):
        anchor = pyro.sample("anchor", dist.Normal(torch.zeros(1), 1.0).to_event(1))
        prompt = pyro.sample("prompt", dist.Normal(anchor, 0.5).to_event(1))
    with pyro.plate("outputs", 4):
        centre = prompt.mean(-2, keepdim=True)
        output = pyro.sample("output", dist.Normal(centre, 0.5).to_event(1))
        pyro.deterministic("synthetic", output, event_dim=1)


def readme(anchors: int = 20, outputs: int = 50, dimension: int = 2, noise: float = 0.1):
    """The process of the README."""
    centre = pyro.sample("centre", dist.Normal(0.0, 3.0).expand([dimension]).to_event(1))
    with pyro.plate("anchors", anchors):
        anchor = pyro.sample("anchor", dist.Normal(centre, 1.0).to_event(1))
    prompt = pyro.sample("prompt", dist.Normal(anchor.mean(-2, keepdim=True), 0.1).to_event(1))
    with pyro.plate("outputs", outputs):
        output = pyro.sample("output", dist.Normal(prompt, 0.5).to_event(1))
        pyro.sample("synthetic", dist.Normal(output, noise).to_event(1))


def laplace_answers(noise: float = 0.05, rows: int = 4):
    """Answers with a Laplace distribution, revised with normal noise: rbpp has no closed form."""
    centre = pyro.sample("centre", dist.Normal(torch.zeros(1), 1.0).to_event(1))
    with pyro.plate("targets", 200):
        pyro.sample("target", dist.Normal(centre, 1.0).to_event(1))
    with pyro.plate("anchors", 2):
        anchor = pyro.sample("anchor", dist.Normal(centre, 0.5).to_event(1))
    prompt = pyro.deterministic("prompt", anchor.mean(-2, keepdim=True), event_dim=1)
    with pyro.plate("outputs", rows):
        output = pyro.sample("output", dist.Laplace(prompt, 0.7).to_event(1))
        pyro.sample("synthetic", dist.Normal(output, noise).to_event(1))


def copied_letter(noise: float = 0.0, letters: int = 3):
    """Curation that draws a letter, with probability one the output's where noise is 0."""
    bias = pyro.sample("bias", dist.Dirichlet(torch.ones(letters)))
    with pyro.plate("anchors", 3):
        anchor = pyro.sample("anchor", dist.Categorical(bias.unsqueeze(-2)).to_event(1))
    prompt = pyro.deterministic("prompt", anchor, event_dim=1)
    table = 0.6 * torch.eye(letters) + 0.4 / letters
    slips = (1 - noise) * torch.eye(letters) + noise / letters
    with pyro.plate("outputs", 2):
        output = pyro.sample("output", dist.Categorical(table[prompt[..., :1, :]]).to_event(1))
        pyro.sample("synthetic", dist.Categorical(slips[output]).to_event(1))
