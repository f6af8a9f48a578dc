"""A process of letters: every information is a finite sum."""

import numpy as np


class Letters:
    """Prompts of a few kinds, outputs of a few letters, a row of probabilities for each kind."""

    def __init__(self, kinds=12, letters=6, concentration=0.3, seed=1):
        random = np.random.default_rng(seed)
        self.shares = random.dirichlet(np.ones(kinds))
        matrix = random.dirichlet(np.full(letters, concentration), kinds) + 1e-9
        self.matrix = matrix / matrix.sum(1, keepdims=True)
        self.marginal = self.shares @ self.matrix
        self.gain = -(self.shares[:, None] * self.matrix * np.log(self.matrix)).sum()
        self.entropy = -(self.marginal * np.log(self.marginal)).sum()
        self.information = self.entropy - self.gain

    def draw(self, prompts, outputs, random, others=None):
        """Arguments of `log_probabilities`: `outputs` of each of `prompts` drawn prompts."""
        kind = random.choice(len(self.shares), prompts, p=self.shares)
        prompt = np.repeat(np.arange(prompts), outputs)
        steps = self.matrix.cumsum(1)[kind[prompt]]
        letter = (random.random((len(prompt), 1)) > steps[:, :-1]).sum(1)
        log_prob = np.log(self.matrix)[kind[None, :], letter[:, None]]
        found = {"prompt": prompt, "path_entropy": self.path_entropy[kind[prompt]]}
        if others is None:
            return {"log_prob": log_prob, **found}
        ahead = np.argsort(random.random((len(prompt), prompts - 1)), 1)[:, :others]
        index = ahead + (ahead >= prompt[:, None])
        own = np.take_along_axis(log_prob, prompt[:, None], 1)
        chosen = np.take_along_axis(log_prob, index, 1)
        return {"log_prob": np.concatenate([own, chosen], 1), "others": index, **found}

    @property
    def path_entropy(self):
        return -(self.matrix * np.log(self.matrix)).sum(1)
