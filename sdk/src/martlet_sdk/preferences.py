"""A small preference task of made-up text: short, polite answers to the point are preferred. For tests and examples.

``python -m martlet_sdk.preferences FOLDER`` writes ``pairs.jsonl`` (dpo, orpo, simpo, cpo, rm), ``labels.jsonl`` (kto),
and rows that ask what those never ask, ``pairs-val.jsonl`` and ``labels-val.jsonl``. The same seed gives the same rows,
and ``merits`` judges any answer, so that what was learnt can be measured.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Iterator, Sequence
from pathlib import Path

Row = dict[str, object]

PLACES = {
    "lamp": "on the table", "key": "in the drawer", "boat": "at the harbour", "map": "behind the door",
    "bread": "in the kitchen", "ladder": "under the roof", "letter": "beside the window", "bell": "near the gate",
}  # fmt: skip
"""Things that are asked for, and where they are."""
QUESTIONS = ("Where is the {}?", "Can you tell me where the {} is?", "I look for the {}.", "Who has seen the {}?")
POLITE = ("Gladly:", "With pleasure:", "Of course:")
RUDE = ("Not you again.", "What a bore.", "Use your eyes.")
CHATTER = (
    "There was a time when people looked for things themselves.",
    "I have told everybody and nobody listens to what I say.",
    "It rained the whole week and the streets were full of mud.",
    "Some days are long and some days are longer than that.",
)
LONGEST = 12
"""Words of an answer that is short."""


def merits(question: str, answer: str) -> int:
    """Count what is good about an answer, 0 to 3: it is polite, it is short, it says where the thing is."""
    asked = next((thing for thing in PLACES if thing in question), "")
    polite = answer.startswith(POLITE)
    short = 0 < len(answer.split()) <= LONGEST
    to_the_point = bool(asked) and f"the {asked} is {PLACES[asked]}" in answer
    return polite + short + to_the_point


def questions(held_out: bool = False) -> list[tuple[str, str]]:
    """Return each question that is asked, or each that is held out, and the thing that it is about."""
    asked = [(form, thing) for form in range(len(QUESTIONS)) for thing in range(len(PLACES))]
    things = list(PLACES)
    return [
        (QUESTIONS[form].format(things[thing]), things[thing])
        for form, thing in asked
        if held_out == ((form + thing) % len(QUESTIONS) == 0)
    ]


def pairs(count: int, seed: int = 0, *, held_out: bool = False) -> Iterator[Row]:
    """Yield rows with ``query``, ``response``, ``rejected_response`` and ``margin``: by how many merits it wins, of 3.

    The preferred answer has all three merits; the other one lacks at least one.
    """
    chance, asked = random.Random(seed), questions(held_out)
    for _ in range(count):
        question, thing = chance.choice(asked)
        good = f"{chance.choice(POLITE)} the {thing} is {PLACES[thing]}."
        lost = chance.choice([(True, True, True), (True, True, False), (True, False, False), (False, True, False)])
        bad = _answer(thing, lost, chance)
        margin = (merits(question, good) - merits(question, bad)) / 3
        yield {"query": question, "response": good, "rejected_response": bad, "margin": round(margin, 3)}


def labels(count: int, seed: int = 0, *, held_out: bool = False) -> Iterator[Row]:
    """Yield rows with ``query``, ``response`` and ``label``: one answer of each pair, about half of them good."""
    chance = random.Random(f"labels {seed}")
    for row in pairs(count, seed, held_out=held_out):
        label = chance.random() < 0.5
        yield {"query": row["query"], "response": row["response" if label else "rejected_response"], "label": label}


def _answer(thing: str, lost: tuple[bool, bool, bool], chance: random.Random) -> str:
    """Return an answer without some of the merits: polite, short, to the point."""
    rude, long, astray = lost
    told = chance.choice([one for one in PLACES if one != thing]) if astray else thing
    parts = [chance.choice(RUDE if rude else POLITE), f"the {told} is {PLACES[told]}."]
    return " ".join(parts + (chance.sample(CHATTER, 2) if long else []))


def write(folder: str | Path, count: int = 400, seed: int = 0) -> Path:
    """Write the four files into a folder, ``count`` rows each."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in (("pairs", pairs), ("labels", labels)):
        for suffix, held_out in (("", False), ("-val", True)):
            text = "".join(json.dumps(row) + "\n" for row in rows(count, seed, held_out=held_out))
            (folder / f"{name}{suffix}.jsonl").write_text(text, encoding="utf-8")
    return folder


def main(words: Sequence[str] | None = None) -> None:
    """Write the files that the command line asks for."""
    summary = "Write a small preference task of made-up text: pairs, labels, and rows to evaluate on."
    parser = argparse.ArgumentParser(prog="python -m martlet_sdk.preferences", description=summary)
    parser.add_argument("folder", type=Path, help="folder to write to; files of these names there are replaced")
    parser.add_argument("--rows", type=int, default=400, help="rows of each file (400)")
    parser.add_argument("--seed", type=int, default=0, help="another seed gives other rows (0)")
    given = parser.parse_args(words)
    print(write(given.folder, given.rows, given.seed))


if __name__ == "__main__":
    main()
