"""Draw the log of a run as pictures: one PNG for each metric and an overview. matplotlib is imported when drawing."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TRAIN, EVAL, ALARM, INK, QUIET = "#2f6db5", "#e07b1a", "#c23b3b", "#2b2f36", "#8a919c"
"""Colours of the training curve, the evaluation curve, values that are not finite, text and axes."""
OVERVIEW = ("loss", "token_acc", "rewards/margins", "rewards/accuracies", "learning_rate", "grad_norm")
_LEFT_OUT = re.compile(
    r"step|epoch|total_flos|num_input_tokens_seen|memory\w*|(.*_)?(runtime|preparation_time|\w+_per_second|seconds)"
)
_EXACT = ("learning_rate",)
"""Metrics without noise, drawn as they are."""
_SMOOTH_FROM = 20
"""Fewer points are not smoothed."""
_STYLE: Any = {
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": "#c9ced6",
    "axes.labelcolor": QUIET,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": "#e8ebef",
    "grid.linewidth": 0.8,
    "xtick.color": QUIET,
    "ytick.color": QUIET,
    "lines.solid_capstyle": "round",
    "lines.solid_joinstyle": "round",
    "legend.frameon": False,
}


@dataclass
class Curve:
    """The values of one metric by step, in training and in evaluation."""

    train: dict[int, float] = field(default_factory=dict)
    eval: dict[int, float] = field(default_factory=dict)


def curves(history: Iterable[Mapping[str, Any]]) -> dict[str, Curve]:
    """Sort a trainer's ``log_history`` by metric. Of two values at one step the later counts."""
    found: dict[str, Curve] = {}
    for record in history:
        if "train_runtime" in record or not isinstance(record.get("step"), int):
            continue  # the summary at the end of a run
        for key, value in record.items():
            name = key.removeprefix("eval_")
            if isinstance(value, (int, float)) and not isinstance(value, bool) and not _LEFT_OUT.fullmatch(name):
                curve = found.setdefault(name, Curve())
                (curve.train if name == key else curve.eval)[record["step"]] = float(value)
    return found


def draw(history: Iterable[Mapping[str, Any]], folder: Path) -> list[Path]:
    """Write ``NAME.png`` for every metric in ``history`` and ``overview.png``; return the files.

    Each file is replaced in one step, so a viewer never reads half a picture.
    """
    found = curves(history)
    if not found:
        return []
    import matplotlib

    folder.mkdir(parents=True, exist_ok=True)
    written = []
    with matplotlib.rc_context(_STYLE):
        for name, curve in found.items():
            figure = _figure(8, 4.5)
            _plot(figure.add_subplot(), name, curve)
            written.append(_save(figure, folder / f"{_file_name(name)}.png"))
        shown = [name for name in OVERVIEW if name in found] or list(found)[:4]
        columns = 1 if len(shown) == 1 else 2
        rows = math.ceil(len(shown) / columns)
        figure = _figure(6.2 * columns, 3.6 * rows)
        for place, name in enumerate(shown, 1):
            _plot(figure.add_subplot(rows, columns, place), name, found[name])
        written.append(_save(figure, folder / "overview.png"))
    return written


def smooth(values: Sequence[float], span: float) -> list[float]:
    """Return the average of a forward and a backward exponential mean over about ``span`` points: no lag."""

    def one_way(series: Sequence[float]) -> list[float]:
        keep, mean, weight, result = 1 - 1 / span, 0.0, 0.0, []
        for value in series:
            mean = keep * mean + (1 - keep) * value
            weight = keep * weight + (1 - keep)
            result.append(mean / weight)
        return result

    backward = one_way(values[::-1])[::-1]
    return [(first + second) / 2 for first, second in zip(one_way(values), backward, strict=True)]


def _figure(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    # Without pyplot: no global figure list, no choice of back end, safe in any thread and notebook.
    return Figure(figsize=(width, height), layout=ConstrainedLayoutEngine(w_pad=0.14, h_pad=0.14))


def _plot(axes: Axes, name: str, curve: Curve) -> None:
    axes.set_title(name, loc="left", fontweight="bold", fontsize=12, pad=10)
    axes.set_xlabel("step")
    train, evaluated = _finite(curve.train), _finite(curve.eval)
    labelled = bool(train and evaluated)
    if len(train) >= _SMOOTH_FROM and name not in _EXACT:
        steps, values = list(train), list(train.values())
        axes.plot(steps, values, color=TRAIN, alpha=0.28, linewidth=1)
        span = max(3.0, len(values) / 25)
        axes.plot(steps, smooth(values, span), color=TRAIN, linewidth=2.2, label="train (smoothed)")
        labelled = True
    elif train:
        marker = "o" if len(train) <= _SMOOTH_FROM and name not in _EXACT else ""
        axes.plot(list(train), list(train.values()), color=TRAIN, linewidth=2, marker=marker, ms=4, label="train")
    if evaluated:
        axes.plot(list(evaluated), list(evaluated.values()), color=EVAL, linewidth=2, marker="o", ms=5, label="eval")
    labelled |= _mark_not_finite(axes, curve)
    _scale(axes, list(train.values()) + list(evaluated.values()))
    if labelled:
        axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=3, fontsize=9, borderaxespad=0.2)


def _finite(points: Mapping[int, float]) -> dict[int, float]:
    return {step: points[step] for step in sorted(points) if math.isfinite(points[step])}


def _mark_not_finite(axes: Axes, curve: Curve) -> bool:
    """Show where the metric was nan or infinite: a gap alone is easily overlooked."""
    broken = [
        step for points in (curve.train, curve.eval) for step, value in points.items() if not math.isfinite(value)
    ]
    for step in broken[:200]:
        axes.axvline(step, color=ALARM, alpha=0.35, linewidth=1)
    if broken:
        axes.plot([], [], color=ALARM, linewidth=1, label=f"nan or inf, first at step {min(broken)}")
    return bool(broken)


def _scale(axes: Axes, values: Sequence[float]) -> None:
    """Use a logarithmic axis where a few spikes would flatten everything else."""
    from matplotlib.ticker import MaxNLocator

    ordered = sorted(values)
    if len(ordered) >= 5 and ordered[0] > 0 and ordered[-1] > 20 * ordered[len(ordered) // 2]:
        axes.set_yscale("log")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.6g}")
    axes.margins(x=0.02, y=0.08)
    axes.xaxis.set_major_locator(MaxNLocator(nbins="auto", steps=[1, 2, 2.5, 5, 10], integer=True))


def _file_name(metric: str) -> str:
    return re.sub(r"[^\w.-]+", "_", metric).strip("._") or "metric"


def _save(figure: Figure, path: Path) -> Path:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        figure.savefig(temporary, format="png", dpi=120)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path
