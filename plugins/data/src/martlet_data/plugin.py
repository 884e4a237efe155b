"""What martlet-data adds to Martlet."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from martlet import Arguments, Command, Dataset, DatasetSource, Preprocessor, hookimpl

if TYPE_CHECKING:
    from martlet.config import Config
    from martlet.run import Run


@hookimpl
def provide_commands() -> Iterable[Command]:
    yield Command(
        "data preview",
        "martlet_data.preview:main",
        roles=("model", "template", "data", "mode", "preview"),
        defaults={"dataset_shuffle": False},
        summary="Show samples as the model will see them, with the supervised tokens in colour.",
    )
    yield Command(
        "data check",
        "martlet_data.check:main",
        roles=("model", "template", "data", "encode", "mode", "check"),
        summary="Read and encode datasets as training would, and report what comes of it.",
    )
    yield Command(
        "data list",
        "martlet_data.browse:list_datasets",
        roles=("data-list",),
        summary="List the datasets that have a name.",
    )
    yield Command(
        "data show",
        "martlet_data.browse:show_dataset",
        roles=("data-show",),
        positional="name",
        summary="Show one dataset: its ids, subsets, columns and tags.",
    )


@hookimpl
def provide_arguments() -> Iterable[Arguments]:
    yield Arguments("data-list", "martlet_data.args:ListArguments", roles=("data-list",))
    yield Arguments("data-show", "martlet_data.args:ShowArguments", roles=("data-show",))
    yield Arguments("data", "martlet_data.args:DataArguments", roles=("data",), restored_by="load_data_args")
    yield Arguments(
        "naming",
        "martlet_data.args:NamingArguments",
        roles=("data", "data-list", "data-show"),
        restored_by="load_data_args",
    )
    yield Arguments("mode", "martlet_data.args:ModeArguments", roles=("mode",))
    yield Arguments("preview", "martlet_data.args:PreviewArguments", roles=("preview",))
    yield Arguments("check", "martlet_data.args:CheckArguments", roles=("check",))


@hookimpl
def provide_datasets() -> Iterable[Dataset]:
    from . import catalogue

    yield from catalogue.datasets()


@hookimpl
def provide_dataset_sources() -> Iterable[DatasetSource]:
    for name, target, endings, summary in (
        ("jsonl", "martlet_data.lines:read_jsonl", (".jsonl", ".ndjson"), "one JSON object a line"),
        ("json", "martlet_data.documents:read_json", (".json",), "a JSON array or object of rows"),
        ("csv", "martlet_data.documents:read_csv", (".csv",), "comma-separated, first line names columns"),
        ("tsv", "martlet_data.documents:read_tsv", (".tsv",), "tab-separated, first line names columns"),
        ("txt", "martlet_data.lines:read_text", (".txt",), "plain text, a row on each line"),
    ):
        packed = tuple(ending + more for ending in endings for more in ("", ".gz", ".zst"))
        yield DatasetSource(name, target, suffixes=packed, summary=f"{summary}; also as .gz or .zst")
    yield DatasetSource("parquet", "martlet_data.tables:read_parquet", suffixes=(".parquet",), summary="Apache Parquet")
    yield DatasetSource(
        "arrow", "martlet_data.tables:read_arrow", suffixes=(".arrow",), summary="Arrow IPC file or stream"
    )


@hookimpl
def provide_preprocessors() -> Iterable[Preprocessor]:
    yield Preprocessor(
        "messages",
        "martlet_data.layouts:messages",
        columns=(frozenset({"messages"}),),
        summary="messages: [{role, content}], with tool calls and reasoning",
    )
    yield Preprocessor(
        "sharegpt",
        "martlet_data.layouts:sharegpt",
        columns=(frozenset({"conversations"}), frozenset({"conversation"})),
        summary="conversations: [{from, value}], or [{human, assistant}]",
    )
    yield Preprocessor(
        "alpaca",
        "martlet_data.layouts:alpaca",
        columns=(frozenset({"instruction", "output"}), frozenset({"instruction"})),
        summary="instruction, input, output (or response); optionally system, history",
    )
    yield Preprocessor(
        "query_response",
        "martlet_data.layouts:query_response",
        columns=tuple(map(frozenset, ({"query"}, {"prompt"}, {"question"}, {"input", "output"}, {"response"}))),
        summary="query, response (or prompt/completion, question/answer, input/output); optionally system, history",
    )
    yield Preprocessor(
        "preference",
        "martlet_data.layouts:preference",
        columns=(frozenset({"chosen", "rejected"}),),
        summary="chosen, rejected: two conversations or texts; with a prompt beside them they fit a layout above",
    )
    yield Preprocessor(
        "text", "martlet_data.layouts:text", columns=(frozenset({"text"}),), summary="text: plain text to continue"
    )


@hookimpl
def on_config(config: Config) -> None:
    """Fail at once on a dataset that does not exist."""
    from .resolve import check

    check(config)


@hookimpl
def on_run_start(run: Run) -> None:
    """Warn of names that no dataset asks for."""
    from .args import DataArguments
    from .self_cognition import warn_if_idle

    if DataArguments in run.config:
        warn_if_idle(run)
