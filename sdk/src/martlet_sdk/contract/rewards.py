"""Rewards: ``(completions, **columns) -> one score each``."""

from __future__ import annotations

import copy
import inspect
import math
from collections.abc import Sequence
from numbers import Real
from typing import Any

from martlet.specs import Reward

from .base import Broken, require
from .kit import Kit

COMPLETIONS = ("", "4", "<think>\nTwo and two.\n</think>\n\nThe answer is 4.", "四。\n```python\nprint(2 + 2)\n```")
PROMPT = [{"role": "user", "content": "What is two plus two?"}]
COLUMNS: dict[str, list[Any]] = {
    "messages": [PROMPT] * 4,
    "prompt": ["What is two plus two?"] * 4,
    "solution": ["4", "4", "4", "4"],
    "answer": ["4", "4", "4", "4"],
}


def _columns(kit: Kit, spec: Reward) -> dict[str, list[Any]]:
    found = {name: list(COLUMNS.get(name, ["4"] * 4)) for name in (*COLUMNS, *spec.columns)}
    return copy.deepcopy(found | {name: list(values) for name, values in kit.samples.columns.items()})


def _scores(reward: Any, completions: list[str], columns: dict[str, list[Any]]) -> Any:
    try:
        return reward(completions, **columns)
    except TypeError as error:
        if "unexpected keyword argument" in str(error):
            raise Broken(f"it refuses columns it does not know ({error}); accept **columns.") from error
        raise


def check_one_score_each(kit: Kit, spec: Reward) -> None:
    """It returns one score for each completion, also for a single one."""
    reward = kit.build(spec)
    for count in (4, 1):
        columns = {name: values[:count] for name, values in _columns(kit, spec).items()}
        scores = _scores(reward, list(COMPLETIONS[:count]), columns)
        require(
            isinstance(scores, Sequence) and not isinstance(scores, str),
            f"it returned {type(scores).__name__}; return a list of one score for each completion.",
        )
        require(len(scores) == count, f"it returned {len(scores)} scores for {count} completions.")


def check_scores_are_numbers(kit: Kit, spec: Reward) -> None:
    """A score is a finite number, or None where the reward does not apply."""
    scores = _scores(kit.build(spec), list(COMPLETIONS), _columns(kit, spec))
    for text, score in zip(COMPLETIONS, scores, strict=False):
        if score is None:
            continue
        require(isinstance(score, Real), f"its score for {text!r} is a {type(score).__name__}; return a float or None.")
        require(math.isfinite(score), f"its score for {text!r} is {score}; return None where it does not apply.")


def check_unknown_columns(kit: Kit, spec: Reward) -> None:
    """Columns it has never heard of do not disturb it."""
    reward = kit.build(spec)
    columns = _columns(kit, spec)
    plain = _scores(reward, list(COMPLETIONS), copy.deepcopy(columns))
    extra = _scores(reward, list(COMPLETIONS), columns | {"a_column_from_tomorrow": [None] * 4})
    require(len(plain) == len(extra), "it returns another number of scores when a column is added.")


def check_names_its_columns(kit: Kit, spec: Reward) -> None:
    """Beside ``messages``, which every row has, it needs no column that ``columns`` does not name."""
    given = {name: values for name, values in _columns(kit, spec).items() if name in ("messages", *spec.columns)}
    try:
        inspect.signature(kit.build(spec)).bind(list(COMPLETIONS), **given)
    except TypeError as error:
        remedy = "name it in columns=(...), or give the parameter a default"
        raise Broken(f"a dataset may lack a column that it needs ({error}); {remedy}.") from error


def check_changes_nothing(kit: Kit, spec: Reward) -> None:
    """It changes neither the completions nor the columns: the other rewards get the same lists."""
    completions, columns = list(COMPLETIONS), _columns(kit, spec)
    before = copy.deepcopy((completions, columns))
    _scores(kit.build(spec), completions, columns)
    require(completions == before[0], "it changes the list of completions that it is given.")
    changed = [name for name, values in columns.items() if values != before[1][name]]
    require(not changed, f"it changes the column {', '.join(changed)} that it is given.")


CHECKS = (
    check_one_score_each,
    check_scores_are_numbers,
    check_unknown_columns,
    check_names_its_columns,
    check_changes_nothing,
)
