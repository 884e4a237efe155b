"""The plugin keeps the contract of every kind it provides."""

from __future__ import annotations

import pyarrow as pa
import pytest

from martlet_sdk.contract import PluginContract, Samples


@pytest.fixture(scope="module", autouse=True)
def arrow_file(tmp_path_factory):
    table = pa.Table.from_pylist([{"query": "a", "response": "b"}])
    path = tmp_path_factory.mktemp("contract") / "rows.arrow"
    with pa.ipc.new_stream(str(path), table.schema) as stream:
        stream.write_table(table)
    TestData.samples.paths["arrow"] = str(path)


class TestData(PluginContract):
    plugin = "martlet_data.plugin"
    samples = Samples(paths={})
