"""What the exact KL gap says that the published one does not.

    python examples/exact_kl_gap.py [--worlds 100]

The paper verifies Theorem 4.10 by a figure (its Figure 4): the KL gap
D(π_anchor ‖ G) − D(π_gen ‖ G), "larger is better", falls as K grows and falls again as L grows. The
published script draws that figure with histograms on grids that differ from sample to sample, which
is no divergence. Here the same process is measured exactly, in both directions, with posteriors for
the fits.
"""

import argparse

import numpy as np

import rbpp


def main(worlds: int = 100, redraws: int = 100, values: tuple[int, ...] = (2, 5, 15)) -> dict:
    """Print the four findings, and return their numbers."""
    found = {}

    print("1. The published estimator measures little of the gap.\n")
    truth = rbpp.sample_worlds(worlds, seed=1).truth
    own = rbpp.histogram_divergence(
        truth, truth, redraws=2, generator=rbpp.generator(0)
    ).value.mean()
    found["own"] = float(own)
    print(f"   G against itself: {own:.1f} nats by the histograms; the divergence is 0.")
    default = rbpp.study("K", [2], worlds=worlds, histogram_redraws=redraws, seed=1)
    gap = gaps(default, "kl_gap")[0]
    histogram = gaps(default, "kl_gap_histogram")[0]
    found["correlation"] = float(np.corrcoef(gap, histogram)[0, 1])
    found["same_sign"] = int((np.sign(gap) == np.sign(histogram)).sum())
    print(
        f"   Over {worlds} worlds it correlates {found['correlation']:.2f} with the exact gap and\n"
        f"   agrees with its sign in {found['same_sign']}. (On the published script's own worlds,\n"
        "   whose covariances A Bᵀ are neither symmetric nor definite: 0.09, and 21 of 60.)\n"
    )

    print("2. The sign of the gap is a matter of its direction.\n")
    coverage = gaps(default, "kl_gap_coverage")[0]
    found["positive"] = float((gap > 0).mean())
    found["positive_coverage"] = float((coverage > 0).mean())
    print(f"   Paper's direction, D(fit ‖ G): positive in {found['positive']:.0%} of worlds. It")
    print("   punishes mass where G has none, which is what the irrelevant components are, and")
    print("   forgives the J components that the anchors never showed.")
    print(
        f"   Coverage, D(G ‖ fit): positive in {found['positive_coverage']:.0%}. It punishes just"
    )
    print("   what the anchors miss.\n")

    print("3. The trends, as medians over worlds [5 %, 95 %], in nats.\n")
    for knob in "KJL":
        swept = rbpp.study(knob, values, worlds=worlds, seed=1)
        for name in ("kl_gap", "kl_gap_coverage"):
            quantiles = np.percentile(gaps(swept, name), [50, 5, 95], axis=1).T
            found[knob, name] = quantiles[:, 0]
            shown = "   ".join(
                f"{value}: {median:.1f} [{low:.1f}, {high:.1f}]"
                for value, (median, low, high) in zip(values, quantiles, strict=True)
            )
            print(f"   {knob} {name:16} {shown}")
    print(
        "\n   In the paper's direction the gap rises with K, where the published curve falls:\n"
        "   with more anchor components the irrelevant ones weigh less. Only the coverage gap\n"
        "   falls with K, because anchors that see more of the task leave less to add. The tails\n"
        "   are heavy: a mean over worlds is a statement about the few worst.\n"
    )

    print("4. What it means for the reading of Theorem 4.10.\n")
    print(
        "   The paper reads its figure as: larger ΔI (from J and L) raises the bound on GGMI, a\n"
        "   larger −H(S_anchor | W) (from K) tightens it. Irrelevant components do add ΔI, and\n"
        "   the exact gap in the paper's own direction gets worse with every one of them; the\n"
        "   coverage gap hardly notices. So the gap does not follow the bound: ΔI counts whatever\n"
        "   the generator adds, on task or off it, and a bound that grows is no gain that grows."
    )
    return found


def gaps(study: rbpp.Study, name: str) -> np.ndarray:
    """Posterior means of a gap: (values, worlds)."""
    return study.idata["posterior"][name].mean(("chain", "draw")).values


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--worlds", type=int, default=100)
    parser.add_argument("--redraws", type=int, default=100, help="of the histogram estimator")
    arguments = parser.parse_args()
    main(arguments.worlds, arguments.redraws)
