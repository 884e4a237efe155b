"""Prefer short answers."""

from martlet import Reward, hookimpl


def brief(completions, **columns):
    return [1.0 / (1 + len(text)) for text in completions]


@hookimpl
def provide_rewards():
    yield Reward("brief", brief)
