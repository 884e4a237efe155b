"""What holds for any plugin, and the plugins for which it does not hold."""

from __future__ import annotations

import pytest

from martlet import UsageError
from martlet_sdk.contract import Samples, check_plugin
from martlet_sdk.contract.kit import Kit

IMPORT = "from martlet import Reward, hookimpl\n"
SPEC = 'Reward("my-name", my_name,'
SUMMARY = 'summary="1 for an empty answer, less for a longer one."'
FAULTS = [
    (IMPORT, f"import no_such_package\n{IMPORT}", "loads", "ModuleNotFoundError: No module named 'no_such_package'"),
    (
        "def provide_rewards",
        "def provide_reward",
        "loads",
        "there is no hook 'provide_reward'. Did you mean provide_rewards",
    ),
    ("@hookimpl\n", "", "loads", "it implements no hook"),
    ('    yield Reward("my-name", my_name,', '    yield dict(name="x",', "yields_specs", "which is not a Reward"),
    ("    yield ", "    yield Reward('my-name', my_name)\n    yield ", "yields_specs", "twice"),
    ("    yield Reward(", "    raise ValueError(", "yields_specs", "ValueError"),
    ("    yield Reward(", "    Reward(", "provides_something", "yield no spec; is a `yield` missing?"),
    ('Reward("my-name"', 'Reward("My Name"', "names", "'My Name': use lower-case letters"),
    ("    yield ", "    import tokenizers\n    yield ", "listing_is_light", "imports tokenizers"),
    (
        "    yield Reward",
        "    def my_name(completions, **columns): ...\n    yield Reward",
        "provide_is_pure",
        "other specs",
    ),
    (IMPORT, f"import os\nos.environ['A_FLAG'] = '1'\n{IMPORT}", "provide_is_pure", "changes the environment"),
    (IMPORT, f"import sys\nsys.path.append('elsewhere')\n{IMPORT}", "provide_is_pure", "changes sys.path"),
    ("    yield ", "    open('left.txt', 'w').close()\n    yield ", "provide_is_pure", "open('left.txt', 'w')"),
    (
        "    yield ",
        "    __import__('os').makedirs('left', exist_ok=True)\n    yield ",
        "provide_is_pure",
        "os.mkdir('left'",
    ),
    ("    yield ", "    __import__('subprocess').run(['true'])\n    yield ", "provide_is_pure", "subprocess.Popen"),
    (
        SPEC,
        'Reward("my-name", "json:no_such_function",',
        "targets_resolve",
        "'json:no_such_function' cannot be imported",
    ),
    (SPEC, 'Reward("my-name", "json.dumps",', "targets_resolve", 'not of the form "package.module:attribute"'),
    (SPEC, 'Reward("my-name", "json:__name__",', "targets_resolve", "neither a function nor a class"),
    (SPEC, 'Reward("my-name", lambda completions, **columns: [],', "targets_pickle", "cannot be pickled"),
    (SUMMARY, 'enabled_by="no_such_flag"', "facts", "names the flag --no_such_flag, which no plugin is known to have"),
    (SUMMARY, 'defaults={"no_such_flag": 1}', "facts", "names the flag --no_such_flag"),
    (SUMMARY, 'requires=("torch >>= 1",)', "facts", "is not a requirement pip understands"),
]


@pytest.mark.parametrize(("old", "new", "check", "said"), FAULTS, ids=[row[2] for row in FAULTS])
def test_fault(old, new, check, said, fails, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fails("reward", old, new, check, said, general=True)


def test_a_package_imports_nothing_heavy_and_one_file_may(source, tmp_path):
    text = source("reward").replace(IMPORT, f"import numpy\n{IMPORT}")
    (tmp_path / "short.py").write_text(text)
    (tmp_path / "pack").mkdir()
    (tmp_path / "pack" / "__init__.py").write_text(text)
    found = {name: {r.id: r for r in check_plugin(str(tmp_path / name))} for name in ("short.py", "pack")}
    assert {result.outcome for result in found["short.py"].values()} <= {"passed", "skipped"}
    failed = [result for result in found["pack"].values() if result.outcome == "failed"]
    assert [result.id for result in failed] == ["plugin:listing_is_light"]
    assert "imports numpy" in failed[0].message


def test_a_plugin_may_not_be_named_like_a_hub(verdict):
    found = verdict("hub", 'Hub("shelf"', 'Hub("hub_bench"', general=True)
    assert "'hub_bench' is named like a dataset source or hub" in found["plugin_name"].message


def test_a_component_whose_requirement_is_missing_is_skipped(verdict):
    found = verdict("reward", SUMMARY, 'requires=("no-such-package>=1",)')
    assert {result.outcome for result in found.values()} == {"skipped"}
    assert "needs no-such-package>=1, which is not installed" in found["rewards:my-name:one_score_each"].message


def test_a_check_can_be_left_out_with_a_reason(verdict):
    skip = Samples(skip={"one_score_each": "it takes eight at a time"})
    found = verdict("reward", "return [", "return [0] + [", samples=skip)
    assert found["rewards:my-name:one_score_each"].message == "it takes eight at a time"
    assert found["rewards:my-name:one_score_each"].outcome == "skipped"


def test_a_plugin_that_does_not_load_gives_one_result(tmp_path):
    (tmp_path / "half.py").write_text("raise RuntimeError('half way')\n")
    found = list(check_plugin(str(tmp_path / "half.py")))
    assert [(result.id, result.outcome) for result in found] == [("plugin:loads", "failed")]
    assert "half way" in found[0].message


def test_what_is_no_plugin_at_all_is_a_usage_error(tmp_path):
    with pytest.raises(UsageError, match="neither a file, nor a module, nor an installed plugin"):
        list(check_plugin("no_such_plugin"))


def test_results_say_where_the_component_is(verdict):
    found = verdict("reward", "return [", "return [0] + [")
    assert found["rewards:my-name:one_score_each"].where.endswith("reward_bench.py:7")


def test_the_environment_is_as_before(source, tmp_path, monkeypatch):
    import os

    (tmp_path / "clean.py").write_text(source("reward"))
    before = dict(os.environ)
    with Kit(str(tmp_path / "clean.py")) as kit:
        assert kit.specs
        folder = kit.folder
    assert dict(os.environ) == before
    assert not folder.exists()


# Installed distributions

METADATA = "Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n"
KERNEL = "Requires-Dist: martlet-kernel<0.2,>=0.1\n"


@pytest.fixture
def installed(source, tmp_path, monkeypatch):
    """Return a function that installs the reward as a distribution and gives the result of the requirements check."""

    def check(requires, entry="acme-answers", name="acme-answers"):
        info = tmp_path / f"{name}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(METADATA.format(name=name) + requires)
        (info / "entry_points.txt").write_text(f"[martlet]\n{entry} = acme_answers_plugin\n")
        (tmp_path / "acme_answers_plugin.py").write_text(source("reward"))
        monkeypatch.syspath_prepend(str(tmp_path))
        found = {result.id: result for result in check_plugin(entry)}
        assert found["plugin:loads"].outcome == "passed"
        return found["plugin:requirements"]

    return check


def test_an_installed_plugin_with_both_bounds_passes(installed):
    assert installed(KERNEL).outcome == "passed"


@pytest.mark.parametrize(
    ("requires", "said"),
    [
        ("", "does not require martlet-kernel"),
        ("Requires-Dist: martlet-kernel>=0.1\n", "requires martlet-kernel>=0.1; give both bounds"),
        (f"{KERNEL}Requires-Dist: martlet-text==0.1.0\n", "pins martlet-text==0.1.0"),
    ],
)
def test_an_installed_plugin_with_wrong_requirements(requires, said, installed):
    result = installed(requires)
    assert result.outcome == "failed"
    assert said in result.message


def test_an_installed_plugin_is_named_as_its_distribution(installed):
    result = installed(KERNEL, entry="answers", name="martlet-other")
    assert "name the entry point 'other'" in result.message
