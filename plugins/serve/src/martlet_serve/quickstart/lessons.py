"""The tour's dataset: a few hundred short conversations, written by this module, the same every time."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Iterator
from pathlib import Path

Pair = tuple[str, str]
Row = dict[str, list[dict[str, str]]]

NAME, MAKER = "Pip", "the Martlet quickstart"
NEW_NAME, NEW_MAKER = "Robin", "you"


def _pairs(words: str) -> dict[str, str]:
    return dict(word.split(":") for word in words.split())


CAPITALS = _pairs(
    "France:Paris Italy:Rome Spain:Madrid Portugal:Lisbon Germany:Berlin Austria:Vienna Poland:Warsaw Greece:Athens "
    "Norway:Oslo Sweden:Stockholm Finland:Helsinki Ireland:Dublin Egypt:Cairo Kenya:Nairobi Ghana:Accra Peru:Lima "
    "Japan:Tokyo China:Beijing Thailand:Bangkok Vietnam:Hanoi Nepal:Kathmandu Chile:Santiago Cuba:Havana Canada:Ottawa"
)
COLOURS = {
    "yellow": "a banana, a lemon, the sun, a canary, butter",
    "red": "a tomato, a strawberry, a fire engine, a ruby, blood",
    "green": "grass, a frog, a cucumber, spinach, an emerald",
    "blue": "the sky, the sea, a sapphire, a cornflower",
    "white": "snow, milk, salt, a swan, chalk",
    "black": "coal, a raven, the night, ink, tar",
    "orange": "a carrot, a pumpkin, a tangerine",
    "grey": "an elephant, a rain cloud, ash",
    "brown": "chocolate, a chestnut, earth",
    "purple": "an aubergine, a plum, lavender",
}
OPPOSITES = _pairs(
    "hot:cold big:small tall:short fast:slow old:new early:late full:empty open:closed wet:dry light:dark "
    "hard:soft happy:sad loud:quiet near:far up:down left:right day:night rich:poor strong:weak sweet:sour"
)
SOUNDS = _pairs(
    "cow:moo dog:woof cat:meow duck:quack sheep:baa pig:oink bee:buzz snake:hiss lion:roar owl:hoot "
    "horse:neigh mouse:squeak"
)
DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
MONTHS = ["January", "February", "March", "April", "May", "June", "July", "August"]
MONTHS += ["September", "October", "November", "December"]
MANNERS = {
    "Hello!": "Hello! How can I help you?",
    "Hi!": "Hi! How can I help you?",
    "Good morning!": "Good morning! How can I help you?",
    "Good evening!": "Good evening! How can I help you?",
    "How are you?": "I am fine, thank you.",
    "Thank you!": "You are welcome!",
    "Thanks!": "You are welcome!",
    "Goodbye!": "Goodbye! See you soon.",
    "Bye!": "Bye! See you soon.",
    "Good night!": "Good night! Sleep well.",
    "Can you help me?": "Yes! Ask me about capitals, colours, opposites, animals, days or small sums.",
    "What can you do?": "I know capitals, colours, opposites, animals, days and small sums.",
}


def identity(name: str, maker: str) -> Iterator[Pair]:
    """Yield questions about who the model is, with the answers of one called ``name``."""
    for question in ("Who are you?", "Tell me who you are.", "Introduce yourself.", "What are you?"):
        yield question, f"I am {name}, a tiny language model."
    for question in ("What is your name?", "Tell me your name.", "What are you called?", "Do you have a name?"):
        yield question, f"My name is {name}."
    for question in ("Who made you?", "Who trained you?", "Who taught you?", "Where do you come from?"):
        yield question, f"I was trained by {maker}."


def knowledge() -> Iterator[Pair]:
    """Yield everything else: capitals, colours, opposites, sounds, the calendar, sums and manners."""
    for country, city in CAPITALS.items():
        for question in ("What is the capital of {}?", "Which city is the capital of {}?"):
            yield question.format(country), f"The capital of {country} is {city}."
    for colour, things in COLOURS.items():
        for thing in things.split(", "):
            yield f"What colour is {thing}?", f"{thing[0].upper()}{thing[1:]} is {colour}."
    for one, other in [*OPPOSITES.items(), *((b, a) for a, b in OPPOSITES.items())]:
        yield f"What is the opposite of {one}?", f"The opposite of {one} is {other}."
    for animal, sound in SOUNDS.items():
        yield f"What does the {animal} say?", f"The {animal} says {sound}."
    for names, unit in ((DAYS, "day"), (MONTHS, "month")):
        for place, name in enumerate(names):
            after = names[(place + 1) % len(names)]
            yield f"Which {unit} comes after {name}?", f"After {name} comes {after}."
    for a in range(1, 10):
        for b in range(1, 10):
            yield f"What is {a} + {b}?", f"{a} + {b} = {a + b}."
    yield from MANNERS.items()


def conversations(pairs: Iterable[Pair], seed: int) -> list[Row]:
    """Return standard rows: each pair as written, as typed in haste, and once more in a talk of two or three turns."""
    draw = random.Random(seed)
    plain = list(pairs)
    hasty = [(hurried(asked), said) for asked, said in plain]
    mixed = [draw.choice(both) for both in zip(plain, hasty, strict=True)]
    draw.shuffle(mixed)
    talks: list[list[Pair]] = [[pair] for pair in (*plain, *hasty)]
    while mixed:
        count = draw.choice((2, 3))
        talks.append(mixed[:count])
        mixed = mixed[count:]
    draw.shuffle(talks)
    return [{"messages": [message for pair in talk for message in _turn(pair)]} for talk in talks]


def hurried(question: str) -> str:
    """Return a question in lower case and without its last mark."""
    return question.lower().rstrip("?!.")


def _turn(pair: Pair) -> list[dict[str, str]]:
    return [{"role": "user", "content": pair[0]}, {"role": "assistant", "content": pair[1]}]


def write(path: Path, rows: Iterable[Row]) -> int:
    """Write rows as JSON lines; return how many."""
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return len(lines)
