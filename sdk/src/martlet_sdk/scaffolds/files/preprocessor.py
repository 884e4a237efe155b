# mypy: disable-error-code="no-untyped-def"
"""A preprocessor: rows with a question, its answer and, maybe, where the answer was found."""

from martlet import Preprocessor, hookimpl


def my_name(row):
    """Turn a raw row into a conversation; None drops it, a list makes several of it."""
    if not row["answer"]:
        return None
    turns = [("user", row["question"]), ("assistant", row["answer"])]
    return {"messages": [{"role": role, "content": text} for role, text in turns]}


@hookimpl
def provide_preprocessors():
    columns = (frozenset({"question", "answer", "context"}),)
    yield Preprocessor("my-name", my_name, columns=columns, summary="Columns question, answer and context.")
