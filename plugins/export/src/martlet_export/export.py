"""``martlet export``: write data in another form, as its flags say."""

from __future__ import annotations

from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

from martlet import UsageError
from martlet_data.args import DataArguments, ModeArguments
from martlet_data.references import parse
from martlet_models.args import ModelArguments

from .args import ActionArguments, ExportArguments
from .folders import check_target, whole_folder

if TYPE_CHECKING:
    from martlet import Run

MARKS = ("train/index.json", "val/index.json")
"""Files by which an earlier result is known."""


def main(run: Run) -> Path:
    """Do what the flags ask for; return the folder that was written."""
    _check(run)
    return to_cached_dataset(run)


def _check(run: Run) -> None:
    if not run.config[ActionArguments].to_cached_dataset:
        raise UsageError(
            "martlet export needs to know what to write: --to_cached_dataset true encodes the rows of --dataset for "
            "later runs. (Adapters are folded into their model by martlet merge-lora.)"
        )


def to_cached_dataset(run: Run) -> Path:
    """Encode the command's datasets and write them; nothing appears in the folder before all of it is written."""
    from martlet_data.api import write_cached_dataset

    target, mode = _target(run), run.config[ModeArguments].template_mode
    data = run.config[DataArguments]
    paths = [parse(text).path for text in (*data.dataset, *data.val_dataset)]
    sources = [path for path in paths if path is not None]
    check_target(target, sources, replace=run.config[ExportArguments].exist_ok, holds=MARKS)
    template = run.one("templates").bind(run.one("models").load_processor(run), run)
    with whole_folder(target) as draft:
        ledger = write_cached_dataset(run, template, draft, mode)
    totals = ledger.totals()
    print(f"{totals['train']:,} rows to train on and {totals['eval']:,} to evaluate on are in {target}")
    for name, flag in (("train", "cached_dataset"), ("val", "cached_val_dataset")):
        if (target / name).is_dir():
            print(f"Use them: --{flag} {target / name}")
    return target


def _target(run: Run) -> Path:
    given = run.config[ExportArguments].output_dir
    return Path(given or f"{PurePath(str(run.config[ModelArguments].model)).name or 'model'}-cached-dataset")


def plan(run: Run) -> dict[str, Any]:
    """Facts for ``martlet plan``."""
    from martlet_data.api import count_rows

    _check(run)
    rows = count_rows(run)
    target = _target(run)
    names = ["train/"] * bool(rows.train) + ["val/"] * bool(rows.eval) + ["ledger.json", "dropped.jsonl"]
    return {"rows": {"train": rows.train, "eval": rows.eval}, "files": [str(target / name) for name in names]}
