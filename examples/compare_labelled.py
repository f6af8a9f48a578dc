"""Which of three labelled sets to train on: what `rbpp compare` says, and what training then gives.

Headlines are made of words that rise and words that fall. One set is clean, one has 30 % wrong
labels, and one is clean and has 40 rows. Real headlines judge them. Then a classifier is trained on
each, and its accuracy on other real headlines is printed beside the score.

    python examples/compare_labelled.py
"""

import numpy as np
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression

import rbpp

UP = "gain rise profit strong record good".split()
DOWN = "loss fall drop weak cut bad".split()
OTHER = "shares company bank market oil year report plan deal sales".split()


def headlines(count: int, seed: int, wrong: float = 0.0) -> list[dict[str, str]]:
    """Headlines, one word in ten of the other side, and a share of wrong labels."""
    random = np.random.default_rng(seed)
    rows = []
    for index in range(count):
        side = index % 2
        words = list(random.choice(OTHER, 4))
        words += [
            str(random.choice([DOWN, UP][side if random.random() > 0.1 else 1 - side]))
            for _ in range(3)
        ]
        said = side if random.random() > wrong else 1 - side
        rows.append(
            {"headline": " ".join(random.permutation(words)), "label": ["down", "up"][said]}
        )
    return rows


def accuracy(rows: list[dict[str, str]], test: list[dict[str, str]]) -> float:
    """Of a classifier of word counts trained on these rows."""
    counts = CountVectorizer()
    table = counts.fit_transform(row["headline"] for row in rows)
    model = LogisticRegression().fit(table, [row["label"] for row in rows])
    return float(
        model.score(
            counts.transform(row["headline"] for row in test), [row["label"] for row in test]
        )
    )


def main() -> dict[str, dict[str, float]]:
    """Print the comparison and what training gives; return score and accuracy of each set."""
    sets = {
        "clean": headlines(300, 1),
        "wrong labels": headlines(300, 2, wrong=0.3),
        "small": headlines(40, 3),
    }
    fields = rbpp.Fields(text=["headline"], label="label")
    found = rbpp.compare(sets, headlines(200, 4), fields=fields, shares=False)
    print(found.text())
    test = headlines(2000, 5)
    reached = {name: accuracy(rows, test) for name, rows in sets.items()}
    print("\nscore, nats a row, and accuracy after training")
    for line in found.ranking:
        print(f"  {line['name']:14s} {line['score']:7.3f} {reached[line['name']]:6.1%}")
    worst = found.influence.sort_values("influence").head(3)
    print("\nrows that take most from their set's score")
    for row in worst.itertuples():
        print(f"  {row.version}: {row.text!r} said {row.label}: {row.influence:+.3f} nats")
    return {
        line["name"]: {"score": line["score"], "accuracy": reached[line["name"]]}
        for line in found.ranking
    }


if __name__ == "__main__":
    main()
