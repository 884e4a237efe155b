"""Files and functions stay small, and their names say what is inside."""

from __future__ import annotations

import ast

FILE, FUNCTION = 400, 60
KERNEL_LINES = 2000
EMPTY_NAMES = {"utils", "util", "helpers", "helper", "common", "misc", "tools"}


def lines(path) -> int:
    return path.read_text(encoding="utf-8").count("\n")


def test_the_kernel_stays_small(repository):
    kernel = repository.distributions["martlet-kernel"]
    sizes = {kernel.place(file): lines(file) for file in kernel.sources}
    assert sum(sizes.values()) <= KERNEL_LINES, sizes


def test_no_file_is_longer_than_it_can_be_read(distribution):
    long = {distribution.place(file): lines(file) for file in distribution.sources if lines(file) > FILE}
    assert not long, f"\n{long}"


def test_no_test_file_is_longer_than_it_can_be_read(distribution):
    files = (distribution.folder / "tests").rglob("*.py")
    long = {distribution.place(file): lines(file) for file in files if lines(file) > FILE}
    assert not long, f"\n{long}"


def test_no_function_is_longer_than_a_screen(distribution):
    long = {
        f"{distribution.place(file, node)} {node.name}": size
        for file, tree in distribution.sources.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (size := (node.end_lineno or 0) - node.lineno + 1) > FUNCTION
    }
    assert not long, f"\n{long}"


def test_every_module_is_named_after_what_is_inside(distribution):
    assert [distribution.place(file) for file in distribution.sources if file.stem in EMPTY_NAMES] == []


def test_every_module_says_what_it_is_for(distribution):
    silent = [
        distribution.place(f) for f, tree in distribution.sources.items() if tree.body and not ast.get_docstring(tree)
    ]
    assert not silent, "\n" + "\n".join(silent)
