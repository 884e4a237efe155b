"""``martlet data preview``: samples as the model will see them."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from martlet.errors import UsageError
from martlet.protocols import Encoded, Refused

from .args import DataArguments, ModeArguments, PreviewArguments
from .cached_dataset import CachedDataset, read_cached
from .ledger import RowId
from .modes import IGNORED, Mode, mode_for, strategy_of
from .rows import LINE, Row, RowError
from .selection import Part, bad_row, parts_of, shuffled

if TYPE_CHECKING:
    from rich.text import Text

    from martlet.protocols import BoundTemplate
    from martlet.run import Run


@dataclass
class Shown:
    """One row, or why it cannot be used."""

    id: RowId
    encoded: Encoded | Refused
    text: str = ""
    name: str = ""
    """Which sample of its row it is."""


def main(run: Run) -> int:
    """Print the first rows of each dataset. 0, or 1 when none of them can be used."""
    data, wanted = run.config[DataArguments], run.config[PreviewArguments]
    if not (data.dataset or data.val_dataset or data.cached_dataset or data.cached_val_dataset):
        raise UsageError("data preview needs data: give --dataset FILE, a dataset's name or a hub id.")
    parts = parts_of(run)
    processor = run.one("models").load_processor(run)
    template = run.one("templates").bind(processor, run)
    encode = _Encode(template, processor, mode_for(run, run.config[ModeArguments].template_mode), strategy_of(run))
    used = 0
    for part in parts:
        if isinstance(part.opened, CachedDataset):
            read_cached(run, template, part, encode.mode)  # else its samples may be others than shown
        for shown in _samples(run, part, encode, wanted.n):
            if isinstance(shown.encoded, Encoded):
                used += 1
            elif data.strict:
                raise bad_row(shown.id, shown.encoded.reason, shown.encoded.detail)
            if wanted.json:
                ascii_only = (sys.stdout.encoding or "").lower().replace("-", "") != "utf8"
                sys.stdout.write(json.dumps(_as_object(shown), ensure_ascii=ascii_only) + "\n")
            else:
                _print(shown, processor)
    return 0 if used else 1


def _samples(run: Run, part: Part, encode: _Encode, n: int) -> Iterator[Shown]:
    role = "train" if len(part.train) else "eval"
    drawn = shuffled(part.train if role == "train" else part.eval, run, role)
    shown = 0
    for index in drawn.tolist():
        file = part.opened.files[int(part.opened.table.numbers(index))]
        raw = part.opened.table.take([index])[0]
        place = RowId(part.opened.label, file, raw.pop(LINE, index + 1))
        for row in encode(part, raw, place):
            yield from row
            shown += 1
            if shown == n:
                return


@dataclass(frozen=True)
class _Encode:
    """How rows become what is shown."""

    template: BoundTemplate
    processor: Any
    mode: Mode
    strategy: str

    def __call__(self, part: Part, raw: Row, place: RowId) -> Iterator[list[Shown]]:
        """Yield the samples of each row that is made of a raw row, or why it cannot be used."""
        try:
            rows = part.opened.converter(raw)
        except RowError as error:
            yield [Shown(place, Refused(error.reason, error.detail))]
            return
        for row in rows:
            refused = self.mode.refuse(row)
            (made,) = (refused,) if refused else self.mode.encode(self.template, [row], self.strategy)
            for piece in made if isinstance(made, list) else [made]:
                if isinstance(piece, Refused):
                    yield [Shown(place, piece)]
                    continue
                samples = piece if isinstance(piece, tuple) else (piece,)
                told = zip(samples, self.mode.sides(row), self.mode.names(row), strict=True)
                yield [Shown(place, one, self._text(side, one), name) for one, side, name in told]

    def _text(self, row: Row, encoded: Encoded) -> str:
        """Return the rendered text where the tokens are just that, else (truncated rows) the tokens decoded."""
        rendered = "".join(span.text for span in self.template.spans(row))
        if list(self.processor(rendered, add_special_tokens=False)["input_ids"]) == list(encoded.input_ids):
            return rendered
        return _decode(self.processor, encoded.input_ids)


def _decode(processor: Any, ids: Sequence[int]) -> str:
    return str(processor.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False))


def _as_object(shown: Shown) -> dict[str, Any]:
    place = {"dataset": shown.id.dataset, "file": shown.id.file, "line": shown.id.line}
    if isinstance(shown.encoded, Refused):
        return {"refused": shown.encoded.reason, "detail": shown.encoded.detail, **place}
    one = shown.encoded
    return {
        **({"sample": shown.name} if shown.name else {}),
        "text": shown.text,
        "input_ids": list(one.input_ids),
        "labels": list(one.labels),
        "token_weights": weights_of(one),
        **place,
    }


def weights_of(one: Encoded) -> list[float]:
    """Return the weight of every token: 0 where it is not supervised."""
    if one.token_weights is not None:
        return [float(weight) for weight in one.token_weights]
    return [float(label != IGNORED) for label in one.labels]


def pieces(one: Encoded, processor: Any) -> list[tuple[str, float]]:
    """Split the decoded text where the weight changes. The pieces join to the whole text."""
    weights = np.asarray(weights_of(one)) * (np.asarray(one.labels) != IGNORED)
    bounds = [*(np.flatnonzero(np.diff(weights)) + 1).tolist(), len(weights)]
    found, before, start = [], "", 0
    for end in bounds:
        text = _decode(processor, one.input_ids[:end])
        grown = text.startswith(before)
        piece = text[len(before) :] if grown else _decode(processor, one.input_ids[start:end])
        found.append((piece, float(weights[start])))
        before, start = text if grown else before + found[-1][0], end
    return found


def _print(shown: Shown, processor: Any) -> None:
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False, soft_wrap=True)
    if isinstance(shown.encoded, Refused):
        detail = f": {shown.encoded.detail}" if shown.encoded.detail else ""
        console.rule(Text(_short(shown.id)))
        console.print(Text(f"refused, {shown.encoded.reason}{detail}", style="red"))
        return
    one = shown.encoded
    supervised = sum(label != IGNORED for label in one.labels)
    place = f"{_short(shown.id)}, {shown.name}" if shown.name else _short(shown.id)
    console.rule(Text(f"{place}: {one.length} tokens, {supervised} supervised ({supervised / one.length:.0%})"))
    console.print(_coloured(pieces(one, processor), colour=console.color_system is not None))


def _short(place: RowId) -> str:
    """Return where a row is from, so short that what follows still fits on the line."""
    text = str(place)
    return text if len(text) <= 36 else "…" + text[-35:]


def _coloured(found: Sequence[tuple[str, float]], *, colour: bool) -> Text:
    """Mark supervised text green; without colours put it between ⟦ and ⟧. Other weights than 1 are said."""
    from rich.text import Text

    text = Text()
    for piece, weight in found:
        note = f"×{weight:g}" if weight not in (0, 1) else ""
        if not weight:
            text.append(piece, style="dim" if colour else "")
        elif colour:
            text.append(piece + note, style="bold green" if weight == 1 else "bold yellow")
        else:
            text.append(f"⟦{piece}⟧{note}")
    return text
