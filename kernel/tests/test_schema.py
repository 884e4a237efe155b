"""``martlet schema COMMAND``: JSON Schema with groups, owners and components."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.usefixtures("sdk")


@pytest.fixture
def schema(cli, demo):
    def call(*command: str) -> dict:
        result = cli("schema", *(command or ("demo",)), "--external_plugins", demo)
        assert result.code == 0, result.err
        return result.json

    return call


def test_it_is_an_object_schema_of_every_flag(schema):
    found = schema()
    assert found["type"] == "object" and found["title"] == "demo"
    assert {"rate", "steps", "angle", "seed", "external_plugins"} <= set(found["properties"])


def test_each_property_says_default_description_group_and_plugin(schema):
    for name, entry in schema()["properties"].items():
        assert {"default", "description", "x-group", "x-plugin"} <= set(entry), name
    entry = schema()["properties"]["steps"]
    assert (entry["type"], entry["default"], entry["description"]) == ("integer", 10, "How often it turns.")
    assert (entry["x-group"], entry["x-plugin"]) == ("demo", "demo")
    assert schema()["properties"]["angle"]["x-group"] == "demo.steep"


@pytest.mark.parametrize(
    ("flag", "expected"),
    [
        ("rate", {"type": "number", "minimum": 0, "exclusiveMaximum": 10}),
        ("steps", {"type": "integer", "exclusiveMinimum": 0}),
        ("bold", {"type": "boolean"}),
        ("title", {"anyOf": [{"type": "string"}, {"type": "null"}]}),
        ("names", {"type": "array", "items": {"type": "string"}, "default": []}),
        ("color", {"type": "string", "enum": ["red", "green"]}),
        ("colors", {"type": "array", "items": {"type": "string", "enum": ["red", "green"]}}),
        ("rate", {"x-important": True}),
    ],
)
def test_types_ranges_and_choices(schema, flag, expected):
    entry = schema()["properties"][flag]
    assert {key: entry.get(key) for key in expected} == expected


def test_the_default_is_the_commands(schema):
    assert schema("demo")["properties"]["label"]["default"] == "from the command"
    assert schema("demo", "twice")["properties"]["label"]["default"] == "plain"


def test_a_flag_that_names_a_component_says_its_kind_and_the_names_there_are(schema):
    entry = schema()["properties"]["loss"]
    assert entry["x-component"] == "losses"
    assert {"flat", "steep"} <= set(entry["x-names"])


def test_a_flag_that_names_no_component_has_no_such_key(schema):
    assert "x-component" not in schema()["properties"]["steps"]


def test_every_default_is_valid_against_its_own_property(schema):
    types = {
        "integer": int,
        "number": (int, float),
        "boolean": bool,
        "string": str,
        "array": list,
        "object": dict,
        "null": type(None),
    }
    for name, entry in schema()["properties"].items():
        allowed = [part.get("type") for part in entry.get("anyOf", [entry])]
        assert any(isinstance(entry["default"], types[kind]) for kind in allowed), name


def test_nothing_else_is_allowed(schema):
    assert schema()["additionalProperties"] is False


def test_an_unknown_command_suggests_the_nearest(refused, demo):
    assert "Did you mean demo" in refused("schema", "dmeo", "--external_plugins", demo)


def test_it_asks_for_a_command(refused):
    assert "command" in refused("schema")
