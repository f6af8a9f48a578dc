"""A process meets its data: how far a generator's style is from its prompts, and the bounds there.

The built-in corpus, embedded in 8 principal components, under the process M(p) = h(e_p) + g(e_M) of
models/style_shift.py. The posterior says how long the style's shift |E g(e_M)| is, which share of
the variance the prompt explains, and whether such a process makes rows like these.

    python examples/posterior_of_a_world.py
"""

import numpy as np

import rbpp


def main(
    anchors: int = 40,
    rows: int = 120,
    dimension: int = 8,
    seconds: float = 120.0,
    worlds: int = 4,
) -> tuple[rbpp.WorldPosterior, rbpp.Bounds]:
    """Embed, infer, bound: some of the rows are enough for this question."""
    records = rbpp.demo_corpus().sources
    sources = [
        rbpp.read_rows(records[role], role, rbpp.Fields(text=["text"]))
        for role in ("anchor", "synthetic")
    ]
    vectors, _ = rbpp.embed(sources)
    reduced = rbpp.principal_components(vectors, dimension)
    chosen = np.random.default_rng(0)
    anchor, synthetic = (
        chosen.permutation(reduced(one))[:count]
        for one, count in zip(vectors, (anchors, rows), strict=True)
    )
    extent = float(np.std(anchor, axis=0).max())

    process = rbpp.load_process("style_shift", extent=extent, dimension=dimension)
    posterior = rbpp.infer(process, {"anchor": anchor, "synthetic": synthetic}, seconds=seconds)
    print(posterior.summary().loc[["shift_length", "prompt_share", "faithfulness"]])
    for check in posterior.checks:
        print(f"{check.verdict}: {check.statement} ({check.message})")

    sizes = rbpp.SampleSizes(worlds=worlds, replicates=40, pairs=20, groups=4, inner=8)
    bounds = rbpp.bounds(posterior.process, posterior=posterior, sizes=sizes)
    print(bounds.headline[0])
    return posterior, bounds


if __name__ == "__main__":
    main()
