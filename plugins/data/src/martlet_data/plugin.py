"""What martlet-data adds to Martlet."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from martlet import Arguments, Command, DatasetSource, Preprocessor, hookimpl

if TYPE_CHECKING:
    from martlet.config import Config


@hookimpl
def provide_commands() -> Iterable[Command]:
    yield Command(
        "data preview",
        "martlet_data.preview:main",
        roles=("model", "template", "data", "preview"),
        defaults={"dataset_shuffle": False},
        summary="show samples as the model will see them, with the supervised tokens in colour",
    )


@hookimpl
def provide_arguments() -> Iterable[Arguments]:
    yield Arguments("data", "martlet_data.args:DataArguments", roles=("data",), restored_by="load_data_args")
    yield Arguments("preview", "martlet_data.args:PreviewArguments", roles=("preview",))


@hookimpl
def provide_dataset_sources() -> Iterable[DatasetSource]:
    yield DatasetSource(
        "jsonl", "martlet_data.lines:read_jsonl", suffixes=(".jsonl", ".ndjson"), summary="one JSON object a line"
    )
    yield DatasetSource(
        "json", "martlet_data.documents:read_json", suffixes=(".json",), summary="a JSON array or object of rows"
    )
    yield DatasetSource(
        "csv",
        "martlet_data.documents:read_csv",
        suffixes=(".csv",),
        summary="comma-separated, first line names columns",
    )
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
        summary="instruction, input, output; optionally system, history",
    )
    yield Preprocessor(
        "query_response",
        "martlet_data.layouts:query_response",
        columns=tuple(map(frozenset, ({"query"}, {"prompt"}, {"question"}, {"response"}))),
        summary="query, response (or prompt/completion, question/answer); optionally system, history",
    )
    yield Preprocessor(
        "text", "martlet_data.layouts:text", columns=(frozenset({"text"}),), summary="text: plain text to continue"
    )


@hookimpl
def on_config(config: Config) -> None:
    """Fail at once on a dataset that does not exist."""
    from .resolve import check

    check(config)
