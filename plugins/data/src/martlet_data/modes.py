"""What rows are encoded for: one sample each (``train``), two to be compared (``rlhf``), or one with a label (``kto``).

The samples of a row stand side by side wherever rows are kept: of row ``k`` with mode ``rlhf``, sample ``2k`` is the
chosen conversation and ``2k + 1`` the rejected one.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from martlet.errors import DataError, MartletError, UsageError
from martlet.protocols import Encoded, Refused

from .json_values import kind_of
from .rows import Row

if TYPE_CHECKING:
    from martlet.protocols import BoundTemplate
    from martlet.run import Run

IGNORED = -100
SIDES = ("chosen", "rejected")
Made = Encoded | Refused | list[Encoded] | tuple[Encoded, ...]
"""What becomes of a row: a list where it is split into several rows, a tuple where it becomes samples side by side."""


class Mode:
    """One sample a row: pre-training and supervised fine-tuning. Pickles, as every mode does."""

    name = "train"
    group = 1
    """Samples that each row becomes."""
    encoded = frozenset({"messages", "tools"})
    """Columns that become tokens."""
    kept: tuple[str, ...] = ("channel",)
    """Columns that stay with the samples whatever --remove_unused_columns says."""
    kinds: tuple[str, ...] = ()
    """What samples are called, where there are several kinds of them."""
    needs_prompt = False
    """A sample needs tokens before those that are trained on, and a cut from the left must leave one."""

    def refuse(self, row: Row) -> Refused | None:
        """Refuse a standard row by its columns alone."""
        return None

    def names(self, row: Row) -> tuple[str, ...]:
        """Return what each sample of a row is called, of ``kinds``; ``row`` may be what its samples kept of it."""
        return ("",)

    def sides(self, row: Row) -> list[Row]:
        """Return the rows whose messages the samples of a row are."""
        return [row]

    def encode(self, template: BoundTemplate, rows: list[Row], strategy: str) -> Sequence[Made]:
        """Encode standard rows, in order. ``DataError`` when the template fails.

        strategy: ``--truncation_strategy``, which the template follows by itself.
        """
        return encoded_by(template, rows)


class Labels(Mode):
    """One sample a row, with ``label``: whether its answer is good."""

    name = "kto"
    kept = ("channel", "label")
    kinds = ("label true", "label false")
    needs_prompt = True

    def refuse(self, row: Row) -> Refused | None:
        label = row.get("label")
        if isinstance(label, bool):
            return None
        said = "there is no label" if label is None else f"label is {kind_of(label)}"
        return Refused("bad label", f"{said}; say with true or false whether the answer is good")

    def names(self, row: Row) -> tuple[str, ...]:
        return (self.kinds[not row["label"]],)

    def encode(self, template: BoundTemplate, rows: list[Row], strategy: str) -> Sequence[Made]:
        if strategy != "left" or (limit := template.max_length) is None:
            return _whole(template, rows)
        return [one if isinstance(one, Refused) else _behind_prompt(one, limit) for one in _uncut(template, rows)]


class Pairs(Mode):
    """Two samples a row: the conversation that is preferred, and the one that is not."""

    name = "rlhf"
    group = 2
    encoded = Mode.encoded | {"rejected_messages"}
    kept = ("channel", "margin")
    kinds = SIDES

    def refuse(self, row: Row) -> Refused | None:
        if "rejected_messages" in row:
            return None
        hint = "add rejected_response, or train on such rows with martlet sft"
        return Refused("nothing rejected", f"there is no rejected answer beside the chosen one; {hint}")

    def names(self, row: Row) -> tuple[str, ...]:
        return self.kinds

    def sides(self, row: Row) -> list[Row]:
        return [row, {**row, "messages": row["rejected_messages"]}]

    def encode(self, template: BoundTemplate, rows: list[Row], strategy: str) -> Sequence[Made]:
        sides = [side for row in rows for side in self.sides(row)]
        limit = template.max_length if strategy == "left" else None
        made = _whole(template, sides) if limit is None else _uncut(template, sides)
        return [_pair(*pair, limit) for pair in zip(made[::2], made[1::2], strict=True)]


MODES: dict[str, Mode] = {mode.name: mode for mode in (Mode(), Pairs(), Labels())}
TRAIN = MODES["train"]


def mode_for(run: Run, name: str) -> Mode:
    """Return a mode by its name. ``UsageError`` for flags that do not go with it."""
    mode = MODES[name]
    if mode is not TRAIN and strategy_of(run) == "split":
        what = "the two answers of a row" if mode.group > 1 else "the answer that a label is about"
        raise UsageError(f"--truncation_strategy split would cut {what} into pieces; use delete, left or right.")
    return mode


def strategy_of(run: Run) -> str:
    """Return ``--truncation_strategy``, where the template has such a flag."""
    found = [value for flag, value, _ in run.config if flag.name == "truncation_strategy"]
    return str(found[0]) if found else "delete"


def encoded_by(template: BoundTemplate, rows: list[Row]) -> Sequence[Encoded | Refused | list[Encoded]]:
    """Encode rows with a template. ``DataError`` when it fails, or returns something else than its contract says."""
    if not rows:
        return []
    try:
        found = template.encode_batch(rows)
    except MartletError:
        raise
    except Exception as error:
        raise DataError(
            f"The template failed on a batch of {len(rows)} rows: {type(error).__name__}: {error}. "
            "It must refuse a row that it cannot encode."
        ) from error
    if len(found) != len(rows) or [] in found:
        raise DataError(f"The template returned {len(found)} samples for {len(rows)} rows, or none for one.")
    return found


def idle(one: Encoded) -> Refused | None:
    """Refuse a sample that would teach nothing: a first token is never predicted, and weight 0 is not learnt."""
    labels, weights = one.labels, one.token_weights
    first = len(labels) > 0 and labels[0] != IGNORED
    learns = len(labels) - labels.count(IGNORED) > first
    if learns and weights is not None:
        learns = any(w and label != IGNORED for w, label in zip(weights[1:], labels[1:], strict=True))
    return None if learns else Refused("nothing supervised", "no token of it would be trained on")


def _whole(template: BoundTemplate, rows: list[Row]) -> list[Encoded | Refused]:
    """Encode rows of which each has to stay one sample."""
    split = Refused("split", "its template makes several samples of it")
    return [split if isinstance(one, list) else one for one in encoded_by(template, rows)]


def _uncut(template: BoundTemplate, rows: list[Row]) -> list[Encoded | Refused]:
    """Encode rows as ``_whole`` does, whatever ``--max_length`` is: what is cut off is for the mode to say."""
    template = copy(template)
    template.max_length = None
    return _whole(template, rows)


def _behind_prompt(one: Encoded, limit: int) -> Encoded | Refused:
    """Cut from the left what does not fit; refuse what would have no prompt any more."""
    lost = max(0, len(one.input_ids) - limit)
    return without_prompt(one.labels, lost) or (_without_first(one, lost) if lost else one)


def without_prompt(labels: Sequence[int] | npt.NDArray[Any], lost: int) -> Refused | None:
    """Refuse a sample of which a cut takes all that stands before its first supervised token."""
    if lost and labels[0] == IGNORED and labels[lost] != IGNORED:
        length = len(labels)
        return Refused("too long", f"{length} tokens; the last {length - lost} hold nothing of its prompt")
    return None


def _pair(chosen: Encoded | Refused, rejected: Encoded | Refused, limit: int | None) -> Refused | tuple[Encoded, ...]:
    """Put two samples side by side; with a ``limit``, cut from the left what does not fit."""
    if isinstance(chosen, Refused):
        return Refused(chosen.reason, of_side("chosen", chosen.detail))
    if isinstance(rejected, Refused):
        return Refused(rejected.reason, of_side("rejected", rejected.detail))
    pair = (chosen, rejected)
    if limit is not None:
        lost = cut_alike(np.asarray(chosen.input_ids), np.asarray(rejected.input_ids), limit)
        pair = (_without_first(chosen, lost[0]), _without_first(rejected, lost[1]))
    return fault(pair) or pair


def fault(samples: Sequence[Encoded]) -> Refused | None:
    """Refuse a row of which a sample would teach nothing, and a pair whose sides do not differ."""
    for side, one in zip(SIDES, samples, strict=False):
        if refused := idle(one):
            return Refused(refused.reason, of_side(side, refused.detail)) if len(samples) > 1 else refused
    if len(samples) > 1 and list(samples[0].input_ids) == list(samples[1].input_ids):
        return Refused("equal answers", "both conversations are the same tokens; there is nothing to prefer")
    return None


def of_side(side: str, detail: str) -> str:
    """Say which side of a pair a detail is about."""
    return f"the {side} conversation: {detail}"


def cut_alike(chosen: npt.NDArray[Any], rejected: npt.NDArray[Any], limit: int) -> tuple[int, int]:
    """Return how many tokens each side of a pair loses at the left, so that both fit into ``limit``.

    The prompt that they share loses equally much on both sides, as much as the longer side needs: two answers are
    compared after the same words. Only what is too long behind it is cut off each side by itself.
    """
    over = [max(0, len(one) - limit) for one in (chosen, rejected)]
    both = min(len(chosen), len(rejected))
    differing = np.flatnonzero(chosen[:both] != rejected[:both])
    shared = min(max(over), int(differing[0]) if len(differing) else both)
    return max(over[0], shared), max(over[1], shared)


def _without_first(one: Encoded, count: int) -> Encoded:
    weights = None if one.token_weights is None else one.token_weights[count:]
    return Encoded(one.input_ids[count:], one.labels[count:], weights, one.extra)
