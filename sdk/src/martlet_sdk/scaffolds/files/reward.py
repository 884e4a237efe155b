# mypy: disable-error-code="no-untyped-def"
"""A reward: prefer short answers."""

from martlet import Reward, hookimpl


def my_name(completions, **columns):
    """Score each completion; None where the reward does not apply. ``columns`` are the dataset's, as lists."""
    return [1.0 / (1 + len(text)) for text in completions]


@hookimpl
def provide_rewards():
    yield Reward("my-name", my_name, summary="1 for an empty answer, less for a longer one.")
