"""A language whose meanings are known: royal and common, male and female, countries and capitals."""

from __future__ import annotations

from random import Random

PEOPLE = {
    "king": ("royal", "male"),
    "queen": ("royal", "female"),
    "man": ("common", "male"),
    "woman": ("common", "female"),
    "prince": ("royal", "male"),
    "princess": ("royal", "female"),
    "boy": ("common", "male"),
    "girl": ("common", "female"),
}
AROUND = {
    "royal": ["crown", "throne", "palace", "court", "realm", "jewels"],
    "common": ["village", "field", "market", "plough", "bread", "street"],
    "male": ["he", "his", "beard", "sir", "brother", "father"],
    "female": ["she", "her", "gown", "lady", "sister", "mother"],
}
FILLERS = ["the", "of", "and", "in", "was", "to"]


def sentences(count: int, seed: int) -> list[str]:
    """Each is about one person, among words of both of its traits and some that say nothing."""
    random = Random(seed)
    found = []
    for _ in range(count):
        person = random.choice(list(PEOPLE))
        words = [person]
        for trait in PEOPLE[person]:
            words += random.sample(AROUND[trait], 3)
        words += random.choices(FILLERS, k=3)
        random.shuffle(words)
        found.append(" ".join(words))
    return found
