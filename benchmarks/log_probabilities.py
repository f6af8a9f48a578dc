"""How often intervals of `rbpp channel` hold the truth, on a process whose informations are sums.

    python benchmarks/log_probabilities.py

prints the table of docs/tutorials/log_probabilities.md, in two minutes of a processor: of the
process that the intervals were made with, and of another.
"""

import numpy as np

import rbpp

# Prompts, outputs of each, and other prompts that an output is scored under.
CASES = (
    *((5, 2, None), (10, 1, None), (10, 3, None), (20, 1, None), (20, 2, None), (30, 2, None)),
    *((60, 1, None), (60, 3, None), (200, 1, None), (80, 2, 12)),
)
PROCESSES = (
    {"kinds": 12, "letters": 6, "concentration": 0.3, "seed": 1},
    {"kinds": 5, "letters": 20, "concentration": 0.1, "seed": 9},
)
REPLICATIONS = 200


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

    @property
    def truths(self):
        """Term to its truth, nats of one output."""
        return {
            "information_gain": self.gain,
            "information_prompt_output": self.information,
            "entropy_output": self.entropy,
        }


def held(letters, prompts, outputs, others, replications=REPLICATIONS, probability=0.94):
    """Term to how many equal-tailed intervals of data sets held its truth."""
    levels = (1 - probability) / 2, (1 + probability) / 2
    found = dict.fromkeys(letters.truths, 0)
    for seed in range(replications):
        data = letters.draw(prompts, outputs, np.random.default_rng(5000 + seed), others)
        terms = rbpp.channel_information(rbpp.log_probabilities(**data), seed=seed).terms
        for name, truth in letters.truths.items():
            low, high = np.quantile(terms[name].value.numpy(), levels)
            found[name] += low <= truth * prompts * outputs <= high
    return found


def main():
    """Print the table."""
    print("| prompts | outputs of each | ΔI | I(p; M(p)) | H(M(p)) |\n|---|---|---|---|---|")
    for prompts, outputs, others in CASES:
        counts = [held(Letters(**one), prompts, outputs, others) for one in PROCESSES]
        shown = f"{prompts}" if others is None else f"{prompts}, each output under {others} others"
        shares = [
            " and ".join(f"{100 * count[name] / REPLICATIONS:.0f} %" for count in counts)
            for name in counts[0]
        ]
        print(f"| {shown} | {outputs} | {' | '.join(shares)} |", flush=True)


if __name__ == "__main__":
    main()
