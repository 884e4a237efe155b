"""Sums, from a file of numbers beside this one."""

from pathlib import Path

from martlet import Dataset, hookimpl


def sums(row):
    return {"query": f"What is {row['a']} plus {row['b']}?", "response": f"It is {row['a'] + row['b']}."}


@hookimpl
def provide_datasets():
    yield Dataset("sums", sums, source={"file": str(Path(__file__).with_name("sums.jsonl"))})
