"""How loose or tight each bound is for the default process, as n, ε and L grow.

Each line is a setting of `gaussian_mixture` with the mean over worlds of what a bound bounds and of
the bound: the information that the learner has of its data, and the generalization error that
follows. Lemma 4.5 counts entropies of whole data sets and is vacuous; the chain rule is not.

    python examples/how_loose.py
"""

import rbpp

SETTINGS: tuple[dict[str, float], ...] = (
    {},
    {"outputs": 50},
    {"outputs": 800},
    {"noise": 0.2},
    {"noise": 1.0},
    {"irrelevant_components": 0},
    {"irrelevant_components": 6},
)
COLUMNS = (
    ("I(S;W)", "information_synthetic_learner"),
    ("chain", "bound_chain_rule"),
    ("4.5", "bound_information_flow"),
    ("gap", "estimation_gap"),
    ("4.4", "bound_lemma_4_4"),
    ("4.6", "bound_lemma_4_6"),
    ("error", "generalization_error"),
    ("3.1", "bound_lemma_3_1"),
    ("sharp", "bound_synthetic_sharp"),
    ("4.7", "bound_synthetic"),
    ("GGMI", "ggmi"),
    ("4.10", "bound_ggmi"),
    ("corr.", "bound_ggmi_corrected"),
)


def terms(knobs: dict[str, float], worlds: int, replicates: int) -> rbpp.Bounds:
    """Terms and bounds of the default process with some knobs changed."""
    process = rbpp.load_process("gaussian_mixture", **knobs)
    components = sum(int(v) for k, v in process.knobs.items() if k.endswith("_components"))
    return rbpp.bounds(
        process,
        sizes=rbpp.SampleSizes(worlds=worlds, replicates=replicates, pairs=32, groups=4, inner=16),
        learner=rbpp.LearnerChoice("mixture", components),
        anchor_learner=rbpp.LearnerChoice("mixture", process.knobs["anchor_components"]),
    )


def main(
    settings: tuple[dict[str, float], ...] = SETTINGS, worlds: int = 4, replicates: int = 64
) -> list[dict[str, float]]:
    """Print one line per setting; return the means over worlds."""
    found = []
    print(" " * 28, *(f"{heading:>8s}" for heading, _ in COLUMNS))
    for knobs in settings:
        means = {
            n: float(t.value.mean()) for n, t in terms(knobs, worlds, replicates).terms.items()
        }
        name = ", ".join(f"{k}={v:g}" for k, v in knobs.items()) or "default"
        values = [f"{means[n]:8.4g}" if n in means else "       -" for _, n in COLUMNS]
        print(f"{name:28s}", *values, flush=True)
        found.append(means)
    return found


if __name__ == "__main__":
    main()
