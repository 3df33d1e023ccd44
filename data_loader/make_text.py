"""Make data/reviews.csv for configs/text.json: short reviews whose words are the same for praise and for blame.

"good, not bad" has the letters of "bad, not good": only their order says which it is. And data/rare_reviews.csv for
configs/rare_class.json, where 1 review in 20 is praise.
"""

from __future__ import annotations

import csv
import random
from pathlib import Path

NUM_TEXTS = 4000
PATH, RARE_PATH = Path("data/reviews.csv"), Path("data/rare_reviews.csv")
PRAISE = ("good", "great", "funny", "fresh", "clever", "moving")
BLAME = ("bad", "poor", "boring", "stale", "silly", "slow")
THINGS = ("film", "plot", "book", "song", "play", "cast", "ending", "first half")
OPENINGS = ("", "well, ", "honestly, ", "i must say: ", "to my surprise ", "as they told me, ")
SHAPES = (
    "{opening}the {thing} was {first}, not {second}",
    "{opening}the {thing} is less {second} than {first}",
    "{opening}a {first} {thing}, not a {second} one",
    "{opening}it is no {second} {thing}, but a {first} one",
)


def make_texts(count: int = NUM_TEXTS, praise_every: int = 2, seed: int = 0) -> list[tuple[str, str]]:
    """Return (text, "praise" or "blame") pairs; one in `praise_every` is praise."""
    generator = random.Random(seed)
    texts = []
    for number in range(count):
        first, second, label = generator.choice(PRAISE), generator.choice(BLAME), "praise"
        if number % praise_every:
            first, second, label = second, first, "blame"
        shape = generator.choice(SHAPES)
        opening, thing = generator.choice(OPENINGS), generator.choice(THINGS)
        texts.append((shape.format(opening=opening, thing=thing, first=first, second=second), label))
    return texts


def write_texts(path: Path, count: int = NUM_TEXTS, praise_every: int = 2) -> None:
    """Write a CSV file with the columns text and label."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        writer.writerows(make_texts(count, praise_every))


if __name__ == "__main__":
    write_texts(PATH)
    write_texts(RARE_PATH, praise_every=20)
    print(f"wrote {PATH} and {RARE_PATH}")
