"""Configuration files: plain values only, every fault with file and line."""

from __future__ import annotations

import pytest

import martlet


@pytest.fixture
def file(tmp_path):
    def write(text: str | bytes, name: str = "run.yaml"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


@pytest.fixture
def fault(refused, demo, file):
    """Return what is said about a file with this text; it must be one sentence that names the file."""

    def call(text: str | bytes) -> str:
        path = file(text)
        said = refused("demo", "--external_plugins", demo, "--config", path)
        assert str(path) in said
        return said

    return call


def test_an_unknown_key_is_refused_with_line_and_suggestion(fault):
    said = fault("seed: 1\n\nstepss: 3\n")
    assert "run.yaml:3" in said and "Did you mean steps?" in said


def test_a_prefix_of_a_key_is_unknown(fault):
    assert "Did you mean" in fault("step: 3\n")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("steps: 3\n\tseed: 1\n", "run.yaml:2"),
        ("extra:\n\ta: 1\n", "tab"),
        ("steps: 3\nsteps: 4\n", "run.yaml:2"),
        ("steps: 3\nseed: 1\nsteps: 4\n", "line 1"),
        ("- steps\n- 3\n", "flag: value"),
        ("just text\n", "flag: value"),
        ("names: [a, b\n", "run.yaml:"),
        ("title: 'open\n", "run.yaml:"),
        ("title: @home\n", "run.yaml:1"),
        ("a: 1\n---\nb: 2\n", "run.yaml:"),
        ("title: *nowhere\n", "run.yaml:1"),
        (b"title: \xff\xfe\n", "utf-8"),
        (b"title: \x00\n", "not valid YAML"),
        ("title: 2024-99-99\n", "run.yaml:1"),
        ("steps: !!int many\n", "run.yaml:1"),
        ("rate: !!float fast\n", "run.yaml:1"),
        ("[a, b]: 1\n", "run.yaml:1"),
        ("5: 1\n", "run.yaml:1"),
    ],
)
def test_a_malformed_file_is_refused(fault, text, said):
    assert said.lower() in fault(text).lower()


@pytest.mark.parametrize(
    "text",
    [
        "title: !!python/object/apply:os.system ['touch {marker}']\n",
        "title: !!python/object/new:subprocess.Popen [['touch', '{marker}']]\n",
        "title: !!python/object/apply:builtins.open ['{marker}', 'w']\n",
        "extra: {{a: !!python/object/apply:pathlib.Path.touch [!!python/object/apply:pathlib.Path ['{marker}']]}}\n",
        "? !!python/object/apply:os.system ['touch {marker}']\n: 1\n",
        "title: !!python/name:os.system\n",
        "title: !!python/module:antigravity\n",
        "title: !local x\n",
    ],
)
def test_a_tag_runs_nothing_and_is_refused_by_name(fault, tmp_path, text):
    marker = tmp_path / "marker"
    said = fault(text.format(marker=marker))
    assert "tag" in said and "run.yaml:1" in said
    assert not marker.exists()


@pytest.mark.parametrize("text", ["", "\n", "# nothing\n"])
def test_an_empty_file_changes_nothing(settings, file, text):
    assert settings("--config", file(text))["steps"]["source"] == "default"


def test_a_byte_order_mark_is_no_part_of_the_first_key(settings, file):
    assert settings("--config", file(b"\xef\xbb\xbfsteps: 3\n"))["steps"]["value"] == 3


def test_text_beyond_ascii_arrives_unchanged(settings, file):
    assert settings("--config", file("title: 模型 – naïve 🙂\n"))["title"]["value"] == "模型 – naïve 🙂"


def test_hyphens_in_a_key_mean_underscores(cli, demo, file):
    assert cli("demo", "--external_plugins", demo, "--config", file("log-level: error\n")).code == 0


def test_anchors_and_merges_work(settings, file):
    text = "extra: &base {a: 1, b: 2}\nsizes: &sizes [1, 2]\nnames: [x]\n"
    assert settings("--config", file(text))["extra"]["value"] == {"a": 1, "b": 2}


def test_a_missing_file_is_refused(refused, demo, tmp_path):
    said = refused("demo", "--external_plugins", demo, "--config", tmp_path / "gone.yaml")
    assert "gone.yaml" in said


def test_a_folder_is_refused(refused, demo, tmp_path):
    assert str(tmp_path) in refused("demo", "--external_plugins", demo, "--config", tmp_path)


# Paths: relative to the file they stand in, where they exist there


def test_a_path_that_exists_beside_the_file_is_relative_to_it(settings, file):
    rows = file("{}", "conf/rows.jsonl")
    found = settings("--config", file("place: rows.jsonl\n", "conf/run.yaml"))
    assert found["place"]["value"] == str(rows)


def test_subset_and_count_behind_a_path_are_kept(settings, file):
    rows = file("{}", "conf/rows.jsonl")
    found = settings("--config", file("places: ['rows.jsonl:small#10', 'rows.jsonl#5', gone.jsonl]\n", "conf/run.yaml"))
    assert found["places"]["value"] == [f"{rows}:small#10", f"{rows}#5", "gone.jsonl"]


def test_a_hub_id_is_left_alone(settings, file):
    assert settings("--config", file("place: org/model\n", "conf/run.yaml"))["place"]["value"] == "org/model"


def test_on_the_command_line_a_path_is_left_as_it_was_written(settings, file, monkeypatch):
    monkeypatch.chdir(file("{}", "conf/rows.jsonl").parent)
    assert settings("--place", "rows.jsonl")["place"]["value"] == "rows.jsonl"


def test_a_plugin_file_is_relative_to_the_file_that_names_it(cli, file, demo, monkeypatch):
    with open(demo) as source:
        file(source.read(), "conf/nearby.py")
    result = cli("demo", "--config", file("external_plugins: nearby.py\nsteps: 3\n", "conf/run.yaml"))
    assert result.json["steps"]["value"] == 3


# Flags that come first, and flags about flags


def test_a_file_may_disable_plugins(site, cli, demo, file):
    site.install("bomb", "raise RuntimeError('imported')")
    result = cli("demo", "--external_plugins", demo, "--config", file("disable_plugins: [bomb]\n"))
    assert (result.code, result.err) == (0, "")


def test_a_file_may_ask_for_strictness(site, refused, demo, file):
    site.install("bomb", "raise RuntimeError('imported')")
    said = refused("demo", "--external_plugins", demo, "--config", file("strict_plugins: true\n"))
    assert "'bomb'" in said


def test_a_file_that_asks_for_tracebacks_is_not_ignored(cli, demo, file):
    said = cli("demo", "--external_plugins", demo, "--config", file("debug: true\nsteps: 0\n")).err
    assert "Traceback" in said or "'debug' belongs on the command line" in said


def test_a_file_may_ask_for_lenience(cli, demo, file):
    assert (
        cli("demo", "--external_plugins", demo, "--config", file("ignore_args_error: true\n"), "--nonsense", "1").code
        == 0
    )


def test_a_file_may_name_further_files_or_is_refused(cli, demo, file):
    file("steps: 3\n", "more.yaml")
    result = cli("demo", "--external_plugins", demo, "--config", file("config: more.yaml\n"))
    assert result.code == 2 or result.json["steps"]["value"] == 3


SCALED = """
from martlet import Loss, hookimpl

class Scaled:
    def __init__(self, options):
        print("scale", options)

@hookimpl
def provide_losses():
    yield Loss("scaled", Scaled)
"""


def test_a_file_may_set_options_of_a_component(cli, demo, plugin, file):
    path = file("loss: scaled\nset: [loss.scaled.scale=2, demo.steps=3]\n")
    result = cli("demo", "--external_plugins", demo, plugin("scales", SCALED), "--config", path)
    assert "scale {'scale': '2'}" in result.out
    assert '"steps": {"value": 3' in result.out


def test_one_option_needs_no_list(settings, file):
    assert settings("--config", file("set: demo.steps=3\n"))["steps"]["value"] == 3


@pytest.mark.parametrize("text", ["set: 5\n", "set: [5]\n", "set: {demo.steps: 3}\n", "set: demo.steps\n"])
def test_a_malformed_option_is_refused_by_name(refused, demo, file, text):
    assert "set" in refused("demo", "--external_plugins", demo, "--config", file(text))


def test_settings_of_the_command_line_win_over_options_of_a_file(settings, file):
    path = file("set: [demo.steps=3, demo.rate=0.5]\n")
    found = settings("--config", path, "--steps", 4, "--set", "demo.rate=0.6")
    assert (found["steps"]["value"], found["rate"]["value"]) == (4, 0.6)


def test_a_file_is_refused_for_another_command_than_its_own(refused, file, demo):
    said = refused("demo", "--external_plugins", demo, "--config", file("command: demo twice\n"))
    assert "run.yaml:1" in said and "demo twice" in said


def test_a_file_with_a_command_works_from_code_too(demo, file):
    path = str(file("command: demo\nset: [demo.steps=3]\nlabel: mine\n"))
    found = martlet.run("demo", external_plugins=[demo], config=[path])
    assert (found["steps"]["value"], found["label"]["value"]) == (3, "mine")


def test_a_file_may_name_a_flag_by_its_group_or_is_refused(cli, demo, file):
    result = cli("demo", "--external_plugins", demo, "--config", file("demo.steps: 3\n"))
    assert result.code == 2 or result.json["steps"]["value"] == 3


# martlet run.yaml


def test_a_file_with_a_command_runs_it(cli, file, demo):
    result = cli(file(f"command: demo\nexternal_plugins: [{demo}]\nsteps: 3\n"))
    assert result.json["steps"]["value"] == 3


def test_flags_behind_the_file_win(cli, file, demo):
    result = cli(file(f"command: demo\nexternal_plugins: [{demo}]\nsteps: 3\n", "run.yml"), "--steps", "4")
    assert result.json["steps"]["value"] == 4


def test_a_file_may_name_a_command_of_two_words(cli, file, demo):
    assert cli(file(f"command: demo twice\nexternal_plugins: [{demo}]\n")).json["label"]["value"] == "plain"


@pytest.mark.parametrize("text", ["steps: 3\n", "command:\nsteps: 3\n", "command: [demo]\n"])
def test_a_file_without_a_command_says_what_is_missing(refused, file, text):
    assert "command:" in refused(file(text))


def test_an_unknown_command_in_a_file_is_refused(refused, file, demo):
    assert "Did you mean demo" in refused(file(f"command: dmeo\nexternal_plugins: [{demo}]\n"))


def test_help_works_behind_a_file(cli, file, demo):
    result = cli(file(f"command: demo\nexternal_plugins: [{demo}]\n"), "--help")
    assert result.code == 0 and "--rate" in result.out


def test_a_file_is_the_same_settings_as_words(demo, file, cli):
    path = file("steps: 3\nnames: [a, b]\nextra: {a: 1}\nbold: true\n")
    by_file = cli("demo", "--external_plugins", demo, "--config", path).json
    by_words = cli(
        "demo", "--external_plugins", demo, "--steps", 3, "--names", "a", "b", "--extra", '{"a": 1}', "--bold"
    ).json
    code = {"steps": 3, "names": ["a", "b"], "extra": {"a": 1}, "bold": True}
    by_code = martlet.run("demo", external_plugins=[demo], **code)
    values = [{name: row["value"] for name, row in found.items()} for found in (by_file, by_words, by_code)]
    assert values[0] == values[1] == values[2]


def test_two_spellings_of_one_flag_are_refused(refused, demo, file):
    said = refused("demo", "--external_plugins", demo, "--config", file("out-put: 1\nout_put: 2\n"))
    assert "run.yaml:2" in said and "'out_put' stands twice" in said
