"""The small data set of the documentation: questions to a bicycle shop, made by people and models.

    python examples/bicycle_shop.py FOLDER

People ask about repairs, sizes, deliveries and returns. Two models were given the same 60 questions
and asked for more. They are grammars, so that the truth is known: the first never asks about
returns, and a quarter of its rows are requests for recipes; the second asks about everything, and
3 % of its rows are requests for recipes. Both write more politely than people do. The files:

    seeds.jsonl           60 questions of people, which the models were given
    held_out.jsonl        240 other questions of people
    first.jsonl           320 rows of the first model, each with the seed that prompted it
    second.jsonl          320 rows of the second
    truth.csv             of every row of the first, whether it is off the task
    first_chats.jsonl, held_out_chats.jsonl    such rows as logs of chats
    first.npy, held_out.npy                    such rows as vectors of 256 numbers
"""

from __future__ import annotations

import csv
import json
import random
import sys
from pathlib import Path

import numpy as np

import rbpp

TOPICS = ("repair", "size", "delivery", "return")
WORDS = {
    "part": "chain brakes gears saddle pedals front-wheel back-wheel crank fork headset".split(),
    "noise": "squeaks rattles slips grinds clicks wobbles rubs sticks".split(),
    "when": "uphill|in the rain|after a long ride|when I brake|since last week|in the cold".split(
        "|"
    ),
    "bike": "road bike|city bike|gravel bike|mountain bike|folding bike|cargo bike|e-bike".split(
        "|"
    ),
    "height": "155 160 165 170 175 180 185 190 195".split(),
    "place": "Oslo Lyon Porto Ghent Graz Turin Malmö Basel Gdansk Seville".split(),
    "goods": "helmet|lock|rear light|pump|pannier|bottle cage|pair of gloves|jacket|bell".split(
        "|"
    ),
    "fault": "too small|scratched|the wrong colour|broken|missing a screw|not what I ordered".split(
        "|"
    ),
    "dish": "lentil soup|apple pie|fried rice|lasagne|pancakes|tomato sauce|banana bread".split(
        "|"
    ),
    "guest": "six people|a vegan|two children|a picnic|a cold evening|a cook without an oven".split(
        "|"
    ),
}
PEOPLE = {
    "repair": (
        "my {part} {noise} {when}, can you fix it",
        "how much to fix a {part} that {noise}",
        "{bike} {part} {noise} {when}, is that dangerous",
        "do you repair the {part} of a {bike} while i wait",
        "hello, could you tell me why my {part} {noise} {when}?",
        "the {part} on my {bike} {noise}, i would like to book a repair",
    ),
    "size": (
        "im {height} cm, which frame for a {bike}",
        "what size {bike} if i am {height}",
        "{height} cm and short legs, is the medium {bike} ok",
        "can i ride a large {bike} at {height}",
        "could you recommend a size of {bike}? i am {height} cm",
    ),
    "delivery": (
        "when does my {goods} get to {place}",
        "do you send a {bike} to {place}",
        "ordered a {goods} last week, still not in {place}",
        "how much is shipping a {goods} to {place}",
        "hello, could you check where my {goods} is? i live in {place}",
    ),
    "return": (
        "the {goods} is {fault}, how do i send it back",
        "can i return a {goods} i already used",
        "want my money back, {goods} came {fault}",
        "exchange a {goods} that is {fault}?",
        "hi, the {goods} i received is {fault}, please tell me how to return it",
    ),
}
MODEL = {
    "repair": (
        "Hello, the {part} of my {bike} {noise} {when}. Could you please tell me what to do?",
        "Could you explain why the {part} {noise} {when} and what a repair would cost?",
        "I would like to book a repair, because the {part} on my {bike} {noise}.",
        "My {part} {noise} {when}. What would it cost to fix that?",
    ),
    "size": (
        "Could you recommend a frame size of a {bike} for a rider who is {height} cm tall?",
        "I am {height} cm tall. Please advise which size of {bike} would suit me best.",
        "Hello, would a medium {bike} be suitable for someone of {height} cm?",
        "Which size of {bike} fits me if I am {height} cm?",
    ),
    "delivery": (
        "Could you please let me know when my {goods} will arrive in {place}?",
        "I would like to know whether you deliver a {bike} to {place}, and at what cost.",
        "Hello, my {goods} was due in {place} last week. Could you check the delivery?",
        "How much is the shipping of a {goods} to {place}?",
    ),
    "return": (
        "Unfortunately the {goods} I received is {fault}. Could you explain how to return it?",
        "I would like to exchange my {goods}, which is {fault}. What are the steps?",
        "Hello, could you refund a {goods} that arrived {fault}?",
        "My {goods} is {fault}. How do I send it back?",
    ),
    "recipe": (
        "Could you please share a recipe of {dish} for {guest}?",
        "I would like to cook {dish} for {guest}. Please list the ingredients.",
        "Hello, how long should {dish} be cooked for {guest}?",
        "How do I make {dish} for {guest}?",
    ),
}


def fill(template: str, chance: random.Random) -> str:
    """The template with a word in every gap."""
    return template.format(**{gap: chance.choice(words) for gap, words in WORDS.items()})


def asked_by_people(count: int, start: int, chance: random.Random) -> list[dict[str, str]]:
    """Questions of people about every topic, no two alike."""
    seen: dict[str, str] = {}
    while len(seen) < count:
        topic = chance.choice(TOPICS)
        seen.setdefault(fill(chance.choice(PEOPLE[topic]), chance), topic)
    return [
        {"id": f"p{start + index}", "text": text, "topic": topic}
        for index, (text, topic) in enumerate(seen.items())
    ]


def made_by_model(
    name: str,
    seeds: list[dict[str, str]],
    count: int,
    *,
    topics: tuple[str, ...],
    off_task: float,
    chance: random.Random,
) -> list[dict[str, str]]:
    """Distinct rows that a model made of the seeds, on the seed's topic or a recipe."""
    recipes = round(off_task * count)
    topics_of_rows = ["recipe"] * recipes + [""] * (count - recipes)
    chance.shuffle(topics_of_rows)
    rows: dict[str, dict[str, str]] = {}
    while len(rows) < count:
        seed = chance.choice([row for row in seeds if row["topic"] in topics])
        topic = topics_of_rows[len(rows)] or seed["topic"]
        text = fill(chance.choice(MODEL[topic]), chance)
        rows.setdefault(
            text,
            {"id": f"{name}{len(rows)}", "prompt": seed["text"], "text": text, "topic": topic},
        )
    return list(rows.values())


def as_chat(row: dict[str, str]) -> dict[str, object]:
    """A row as the log of a chat with the shop."""
    turns = [
        {"role": "system", "content": "You answer for a bicycle shop."},
        {"role": "user", "content": row["text"]},
        {"role": "assistant", "content": "Thank you, we will get back to you within a day."},
    ]
    return {"id": row["id"], "messages": turns}


def vectors(texts: list[str]) -> np.ndarray:
    """Rows as vectors, by the model that rbpp embeds text with: in place of an encoder of yours."""
    rows = rbpp.read_rows([{"text": text} for text in texts], "rows", rbpp.Fields(text=["text"]))
    found, _ = rbpp.embed([rows])
    return np.asarray(found[0], dtype=np.float32)


def main(folder: Path, seed: int = 0) -> dict[str, list[dict[str, str]]]:
    """Write the files, and return the rows by name."""
    folder.mkdir(parents=True, exist_ok=True)
    chance = random.Random(seed)
    people = asked_by_people(300, 0, chance)
    seeds = people[:60]
    sets = {
        "seeds": seeds,
        "held_out": people[60:],
        "first": made_by_model("a", seeds, 320, topics=TOPICS[:3], off_task=0.25, chance=chance),
        "second": made_by_model("b", seeds, 320, topics=TOPICS, off_task=0.03, chance=chance),
    }
    files: dict[str, list[dict[str, object]]] = {
        name: [dict(row) for row in rows] for name, rows in sets.items()
    }
    for name in ("first", "held_out"):
        files[f"{name}_chats"] = [as_chat(row) for row in sets[name]]
    for name, records in files.items():
        lines = [json.dumps(record, ensure_ascii=False) for record in records]
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    with (folder / "truth.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["id", "off_task"])
        table.writerows([row["id"], int(row["topic"] == "recipe")] for row in sets["first"])
    for name in ("first", "held_out"):
        np.save(folder / f"{name}.npy", vectors([row["text"] for row in sets[name]]))
    for name, rows in sets.items():
        print(f"{name}: {len(rows)} rows, such as: {rows[0]['text']}")
    return sets


if __name__ == "__main__":
    main(Path(sys.argv[1] if sys.argv[1:] else "."))
