# mypy: disable-error-code="no-untyped-def"
"""A dataset: questions and answers from a file that lies beside this one."""

from pathlib import Path

from martlet import Dataset, hookimpl


def my_name(row):
    """Turn a row of the file into a conversation; None drops it, a list makes several of it."""
    turns = [("user", row["question"]), ("assistant", row["answer"])]
    return {"messages": [{"role": role, "content": text} for role, text in turns]}


@hookimpl
def provide_datasets():
    file = Path(__file__).with_name("my_name.jsonl")
    yield Dataset("my-name", my_name, source={"file": str(file)}, summary="Three questions about birds.")
