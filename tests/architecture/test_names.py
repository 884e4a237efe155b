"""No component name of one distribution stands in the code of another: names are the user's, facts are spec fields."""

from __future__ import annotations

import ast
import dataclasses
from collections.abc import Iterator
from typing import Any

import pytest

COMMON = {
    # the kernel's own word, words that are also file endings, columns of a row, roles, libraries or plain English
    "default", "all", "auto", "none", "full", "last_round", "base", "local",
    "json", "jsonl", "csv", "parquet", "arrow", "text", "messages", "query_response",
    "transformers", "merge", "model", "chat", "plain",
}  # fmt: skip
"""Names that mean other things too: they count only where they are compared with something that holds a name."""

UNNAMED = ("commands", "arguments")
"""Kinds whose names other distributions may write: a command is part of the user interface, a group of --set."""


@dataclasses.dataclass(frozen=True)
class Names:
    """Who owns which name."""

    owners: dict[str, set[str]]
    by_kind: dict[tuple[str, str], set[str]]
    selectors: set[str]
    """Names of flags that hold component names."""

    def foreign(self, name: object, distribution: str) -> bool:
        return isinstance(name, str) and name in self.owners and distribution not in self.owners[name]


def names_of(specs: list[tuple[str, Any]]) -> Names:
    from martlet.fields import fields_of
    from martlet.specs import load

    owners: dict[str, set[str]] = {}
    by_kind: dict[tuple[str, str], set[str]] = {}
    selectors = set()
    for distribution, spec in specs:
        if spec.kind == "arguments":
            selectors |= {item.name for item in fields_of(load(spec.target)) if item.metadata.get("component")}
        if spec.kind not in UNNAMED:
            owners.setdefault(spec.name, set()).add(distribution)
            for kind in (spec.kind, spec.label, type(spec).__name__):
                by_kind.setdefault((kind, spec.name), set()).add(distribution)
    return Names(owners, by_kind, selectors)


@pytest.fixture(scope="session")
def names(repository) -> Names:
    found = names_of(repository.specs)
    assert found.owners, "no component is installed: run pip install -r requirements.txt first"
    return found


def constants(node: ast.AST) -> list[str]:
    """Return the text of a constant, or of a tuple, list or set of constants."""
    many = node.elts if isinstance(node, ast.Tuple | ast.List | ast.Set) else [node]
    return [item.value for item in many if isinstance(item, ast.Constant) and isinstance(item.value, str)]


def holds_a_name(node: ast.AST, selectors: set[str]) -> bool:
    """Tell whether an expression speaks of a component: ``spec.name``, ``args.tuner_type``, ``value("tuner_type")``."""
    inner = list(ast.walk(node))
    words = {item.id for item in inner if isinstance(item, ast.Name)} | {
        text for item in inner for text in constants(item)
    }
    attributes = {item.attr for item in inner if isinstance(item, ast.Attribute)}
    return bool((words | attributes) & selectors) or "name" in attributes


def is_a_capability(node: ast.AST) -> bool:
    """``"lora" in spec.can`` asks for a fact that the spec states, in words that happen to be names."""
    return isinstance(node, ast.Attribute) and node.attr == "can"


def compared(tree: ast.AST) -> Iterator[tuple[ast.AST, ast.AST, str]]:
    """Yield ``(node, other side, text)`` for texts in ``==``, ``in``, ``match`` and the keys of dispatch tables."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            for side in sides:
                for text in constants(side):
                    yield node, next((other for other in sides if other is not side), node), text
        elif isinstance(node, ast.Match):
            for case in node.cases:
                for value in (item.value for item in ast.walk(case.pattern) if isinstance(item, ast.MatchValue)):
                    for text in constants(value):
                        yield value, node.subject, text
        elif isinstance(node, ast.Subscript) and isinstance(node.value, ast.Dict):
            for text in (text for key in node.value.keys if key for text in constants(key)):
                yield node, node.slice, text


def asked_for(tree: ast.AST) -> Iterator[tuple[ast.Call, str, str]]:
    """Yield ``(call, kind, name)`` of calls such as ``run.get("losses", "x")`` or ``manager.find(Loss, "x")``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and len(node.args) >= 2 and isinstance(node.func, ast.Attribute | ast.Name):
            kind, name = node.args[:2]
            words = constants(kind) or [kind.attr if isinstance(kind, ast.Attribute) else getattr(kind, "id", "")]
            for text in constants(name) if not isinstance(name, ast.Tuple | ast.List | ast.Set) else ():
                yield node, words[0] if words else "", text.rpartition("::")[2]


def faults(tree: ast.AST, distribution: str, names: Names) -> Iterator[tuple[ast.AST, str]]:
    for node, other, text in compared(tree):
        counts = text not in COMMON or holds_a_name(other, names.selectors)
        if names.foreign(text, distribution) and counts and not is_a_capability(other):
            yield node, text
    for call, kind, text in asked_for(tree):
        owners = names.by_kind.get((kind, text), set())
        if owners and distribution not in owners and text != "default":
            yield call, text


def test_no_code_asks_for_a_component_of_another_by_name(distribution, repository, names):
    found = [
        f"{distribution.place(file, node)}: {text!r} belongs to {', '.join(sorted(names.owners[text]))}"
        for file, tree in distribution.sources.items()
        if file.stem != "args"
        for node, text in faults(tree, distribution.name, names)
    ]
    assert not found, "\n" + "\n".join(found)


def test_no_flag_closes_a_list_that_plugins_keep_open(distribution, repository, names):
    """Two names of one kind in the choices of a flag, or in a ``Literal``, are a closed set of components."""
    kinds = {kind for kind, _ in names.by_kind}
    closed = []
    for file, tree in distribution.sources.items():
        for node in ast.walk(tree):
            listed: list[str] = []
            if isinstance(node, ast.Subscript) and ast.unparse(node.value).endswith("Literal"):
                listed = constants(node.slice)
            elif isinstance(node, ast.Dict):
                pairs = zip(node.keys, node.values, strict=True)
                listed = [t for key, value in pairs if key and constants(key) == ["choices"] for t in constants(value)]
            for kind in kinds:
                if sum((kind, text) in names.by_kind for text in listed) >= 2:
                    closed.append(f"{distribution.place(file, node)}: {listed} are {kind}")
    assert not closed, "\n" + "\n".join(closed)


SAMPLE = Names(
    owners={"lora": {"martlet-tuners"}, "text": {"martlet-data"}, "steep": {"martlet-losses"}},
    by_kind={("losses", "steep"): {"martlet-losses"}, ("Loss", "steep"): {"martlet-losses"}},
    selectors={"tuner_type"},
)


@pytest.mark.parametrize(
    "code",
    [
        'if name == "lora": pass',
        'if "lora" != tuner: pass',
        'if tuner in ("full", "lora"): pass',
        'match tuner:\n    case "lora" | "x": pass',
        'make = {"lora": 1, "x": 2}[tuner]',
        'if args.tuner_type == "text": pass',
        'if spec.name == "text": pass',
        'if run.config.value("tuner_type") == "text": pass',
        'run.get("losses", "steep")',
        'manager.find(Loss, "mine::steep")',
        'martlet.get("losses", "steep")',
    ],
)
def test_a_closed_set_would_be_found(code):
    assert [text for _, text in faults(ast.parse(code), "martlet-train", SAMPLE)] != []


@pytest.mark.parametrize(
    "code",
    [
        'row = {"lora": 1}',
        'if part["type"] == "text": pass',
        'if kind == "text": pass',
        'name = "lora"',
        'run.get("losses", name)',
        'if "lora_A" in key: pass',
        'if "lora" not in spec.can: pass',
        'martlet.run("sft", tuner_type="lora")',
    ],
)
def test_other_uses_of_a_word_are_no_fault(code):
    assert list(faults(ast.parse(code), "martlet-train", SAMPLE)) == []


def test_its_owner_may_write_a_name():
    assert list(faults(ast.parse('if name == "lora": pass'), "martlet-tuners", SAMPLE)) == []
