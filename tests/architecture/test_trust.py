"""Calls that run data as code, or check with a statement that ``-O`` removes, stand nowhere in the sources."""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest

FORBIDDEN = {
    "pickle.load": "a pickle runs code when it is read",
    "pickle.Unpickler": "a pickle runs code when it is read",
    "cPickle.load": "a pickle runs code when it is read",
    "joblib.load": "a pickle runs code when it is read",
    "dill.load": "a pickle runs code when it is read",
    "dill.loads": "a pickle runs code when it is read",
    "cloudpickle.load": "a pickle runs code when it is read",
    "cloudpickle.loads": "a pickle runs code when it is read",
    "shelve.open": "a shelf is made of pickles",
    "marshal.load": "it reads code",
    "marshal.loads": "it reads code",
    "yaml.full_load": "only yaml.safe_load reads plain values",
    "yaml.unsafe_load": "only yaml.safe_load reads plain values",
    "yaml.FullLoader": "only yaml.SafeLoader reads plain values",
    "yaml.UnsafeLoader": "only yaml.SafeLoader reads plain values",
    "yaml.Loader": "only yaml.SafeLoader reads plain values",
    "os.system": "it starts a shell",
    "os.popen": "it starts a shell",
    "subprocess.getoutput": "it starts a shell",
    "subprocess.getstatusoutput": "it starts a shell",
    "asyncio.create_subprocess_shell": "it starts a shell",
    "tempfile.mktemp": "another process may take the name first",
    "torch.serialization.add_safe_globals": "weights are tensors",
    "importlib.reload": "a module that is loaded twice has two of every class",
}
FORBIDDEN_CALLS = {
    "eval": "text becomes code",
    "exec": "text becomes code",
    "compile": "text becomes code",
    "jinja2.nativetypes.NativeEnvironment": "templates of a model belong in the sandbox",
    "jinja2.Environment": "templates of a model belong in the sandbox",
    "jinja2.Template": "templates of a model belong in the sandbox",
}
"""Names that are harmless unless they are called: as a field, as an annotation."""
PICKLERS = ("_pickle", "cPickle", "cloudpickle", "dill", "joblib", "marshal", "shelve")
"""Modules for which there is no harmless use here, by whatever name their functions are reached."""
SAFE_LOADERS = ("SafeLoader", "CSafeLoader")


def dotted(node: ast.AST, aliases: dict[str, str]) -> str:
    """Return ``package.name`` of a name or attribute, import aliases resolved."""
    text = ast.unparse(node) if isinstance(node, ast.Name | ast.Attribute) else ""
    head, dot, rest = text.partition(".")
    return f"{aliases.get(head, head)}{dot}{rest}"


def aliases_of(tree: ast.AST) -> dict[str, str]:
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.asname: alias.name for alias in node.names if alias.asname}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    return found


def faults(tree: ast.AST) -> Iterator[tuple[ast.AST, str]]:
    """Yield what must not stand in a source file, with the reason."""
    aliases = aliases_of(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            named = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            for module in named:
                if module.partition(".")[0] in PICKLERS:
                    yield node, f"import {module}: a pickle runs code when it is read"
        if isinstance(node, ast.Assert):
            yield node, "an assert is gone under python -O; raise an error"
        elif isinstance(node, ast.Attribute | ast.Name) and (reason := FORBIDDEN.get(dotted(node, aliases))):
            yield node, f"{dotted(node, aliases)}: {reason}"
        elif isinstance(node, ast.Call):
            yield from _call_faults(node, aliases)


def _call_faults(node: ast.Call, aliases: dict[str, str]) -> Iterator[tuple[ast.AST, str]]:
    name = dotted(node.func, aliases)
    given = {keyword.arg: keyword.value for keyword in node.keywords}
    for spread in (keyword.value for keyword in node.keywords if keyword.arg is None):
        if isinstance(spread, ast.Dict):
            given |= {
                k.value: v for k, v in zip(spread.keys, spread.values, strict=True) if isinstance(k, ast.Constant)
            }

    def is_true(key: str) -> bool:
        return isinstance(value := given.get(key), ast.Constant) and bool(value.value)

    if reason := FORBIDDEN_CALLS.get(name.removeprefix("builtins.")):
        yield node, f"{name}: {reason}"
    if (
        name == "getattr"
        and node.args
        and aliases.get(ast.unparse(node.args[0]), ast.unparse(node.args[0])) == "pickle"
    ):
        yield node, "getattr of pickle: a pickle runs code when it is read"
    if name == "pickle.loads" and not (node.args and "dumps" in ast.unparse(node.args[0])):
        yield node, "pickle.loads: a pickle runs code when it is read"
    if name == "torch.load" and not is_true("weights_only"):
        yield node, "torch.load without weights_only=True"
    if name in ("yaml.load", "yaml.load_all"):
        loaders = [ast.unparse(item) for item in (*node.args[1:2], given.get("Loader")) if item is not None]
        if not any(text.endswith(SAFE_LOADERS) for text in loaders):
            yield node, "yaml.load without SafeLoader"
    for key, reason in {
        "shell": "it starts a shell",
        "allow_pickle": "a pickle runs code when it is read",
        "trust_remote_code": "code of a model repository runs only where the user says so",
    }.items():
        if is_true(key):
            yield node, f"{key}=True: {reason}"


def test_no_source_trusts_data(distribution):
    found = [
        f"{distribution.place(file, node)}: {reason}"
        for file, tree in distribution.sources.items()
        for node, reason in faults(tree)
    ]
    assert not found, "\n" + "\n".join(found)


@pytest.mark.parametrize(
    "code",
    [
        "eval(text)",
        "exec(text)",
        "import pickle\npickle.load(file)",
        "import pickle as p\np.loads(blob)",
        "from pickle import load\nload(file)",
        "import joblib\njoblib.load(path)",
        "from shelve import DbfilenameShelf",
        "import pickle\ngetattr(pickle, 'load')(file)",
        "compile(text, '', 'exec')",
        "import subprocess\nsubprocess.run(text, shell=1)",
        "AutoModel.from_pretrained(path, **{'trust_remote_code': True})",
        "from jinja2.nativetypes import NativeEnvironment\nNativeEnvironment()",
        "from dill import loads\nloads(blob)",
        "import torch\ntorch.load(path)",
        "import torch\ntorch.load(path, weights_only=False)",
        "import yaml\nyaml.load(text)",
        "import yaml\nyaml.load(text, Loader=yaml.FullLoader)",
        "import subprocess\nsubprocess.run(text, shell=True)",
        "import os\nos.system(text)",
        "import numpy as np\nnp.load(path, allow_pickle=True)",
        "AutoModel.from_pretrained(path, trust_remote_code=True)",
        "from jinja2 import Environment\nEnvironment()",
        "assert path.exists()",
    ],
)
def test_a_forbidden_call_would_be_found(code):
    assert list(faults(ast.parse(code))) != []


@pytest.mark.parametrize(
    "code",
    [
        "model.eval()",
        "import re\nre.compile(text)",
        "eval: int = 0",
        "import jinja2\ndef make() -> jinja2.Template: ...",
        "import torch\ntorch.load(path, weights_only=True)",
        "import yaml\nyaml.load(text, Loader=yaml.SafeLoader)",
        "import yaml\nyaml.safe_load(text)",
        "import pickle\npickle.loads(pickle.dumps(x))",
        "import json\njson.load(file)",
        "import subprocess\nsubprocess.run(['a'], shell=False)",
        "from jinja2.sandbox import ImmutableSandboxedEnvironment\nImmutableSandboxedEnvironment()",
        "AutoModel.from_pretrained(path, trust_remote_code=args.trust_remote_code)",
    ],
)
def test_its_safe_twin_is_no_fault(code):
    assert list(faults(ast.parse(code))) == []
