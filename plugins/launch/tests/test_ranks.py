"""Ranks start as the command line says, and however they end, one sentence says so and nothing is left behind."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import time

import pytest
from walking import COUNT, HERE, Walk, ended, gone, walk

# Start


@pytest.fixture(scope="module")
def walked(tmp_path_factory):
    folder = tmp_path_factory.mktemp("walked")
    (folder / "run.yaml").write_text("command: walk\nseed: 7\n")
    (folder / "random.py").write_text("raise RuntimeError('a file of the working directory was imported')\n")
    text = 'it\'s $HOME, $$5 and ${local_rank} "too"'
    return walk(folder, "--config", "run.yaml", "--note", text), text


def test_every_rank_has_the_words_the_plugins_and_the_folder(walked):
    one, text = walked
    assert one.status == 0, one.err
    ranks = [one.rank(number) for number in (0, 1)]
    for number, facts in enumerate(ranks):
        assert (facts["rank"], facts["local_rank"], facts["world_size"], facts["kind"]) == (number, number, 2, "rank")
        assert facts["note"] == text and facts["seed"] == 7
        assert facts["MARTLET_RUN_FOLDER"] == str(one.folder) and facts["cwd"] == str(one.folder.parent)
        assert facts["MARTLET_EXTERNAL_PLUGINS"] == str(HERE / "walk.py")
        assert facts["MASTER_ADDR"] == "127.0.0.1" and facts["session"]
    assert ranks[0]["MASTER_PORT"] == ranks[1]["MASTER_PORT"]


def test_cores_are_shared_among_the_processes(walked):
    cores = len(os.sched_getaffinity(0))
    assert [walked[0].rank(number)["OMP_NUM_THREADS"] for number in (0, 1)] == [str(max(1, cores // 2))] * 2


def test_the_first_rank_speaks_and_the_others_warn(walked):
    one, _ = walked
    assert one.out == "printed by 0\n"
    assert sorted(one.err.splitlines()) == [
        "INFO: info of 0",
        "WARNING: found by all",
        "WARNING: warning of 0",
        "[rank 1] WARNING: warning of 1",
        "chatter of 0",
    ]
    log = (one.folder / "logs" / "rank-1.log").read_text()
    assert "printed by 1" in log and "chatter of 1" in log and "warning of 1" in log
    assert not (one.folder / "logs" / "rank-0.log").exists()


def test_plugins_named_in_the_environment_reach_every_rank(tmp_path):
    variables = COUNT | {"MARTLET_EXTERNAL_PLUGINS": str(HERE / "walk.py"), "OMP_NUM_THREADS": "3"}
    one = walk(tmp_path, "--do", "status", variables=variables, plugin="")
    assert one.status == 5 and "error" not in one.err  # and what a command returns is the status of the run
    assert [one.rank(number)["OMP_NUM_THREADS"] for number in (0, 1)] == ["3", "3"]


# Ends


def test_what_all_ranks_refuse_is_said_once_and_leaves_nothing(tmp_path):
    one = walk(tmp_path, "--do", "refuse")
    assert (one.status, one.error) == (2, "Nobody walks here.")
    assert not list(tmp_path.iterdir())


@pytest.mark.long
def test_what_all_ranks_find_is_said_once(tmp_path):
    one = walk(tmp_path, "--do", "same")
    assert (one.status, one.error) == (1, "All rows are broken.")
    assert ended(one) == "DataError: All rows are broken."


@pytest.mark.parametrize(
    ("do", "said"),
    [
        ("trip", "Rank 1 on {host}: ValueError: a stone ({place}). Its log is {log}."),
        (
            "vanish",
            "Rank 1 on hilltop at step 5 was killed by SIGKILL, probably because memory ran out. Its log is {log}. "
            "The last whole checkpoint is {whole}; to continue, add --resume_from_checkpoint {whole}.",
        ),
        ("fill", "Rank 1 on {host}: The disk is full; resume with {whole}. Its log is {log}."),
        ("leave", "Rank 1 on {host} ended with status 7 and said nothing. Its log is {log}."),
    ],
)
def test_a_rank_that_fails_ends_the_run_and_is_named(do, said, tmp_path):
    start = time.monotonic()
    one = walk(tmp_path, "--do", do, "--who", "1", "--seconds", "600")
    assert time.monotonic() - start < 50
    log, whole = one.folder / "logs" / "rank-1.log", one.folder / "checkpoint-4"
    places = {"host": socket.gethostname(), "log": log, "whole": whole}
    wanted = re.escape(said).replace(r"\{place\}", r"\S+walk\.py:\d+")
    for name, value in places.items():
        wanted = wanted.replace(rf"\{{{name}\}}", re.escape(str(value)))
    assert one.status == 1 and re.fullmatch(wanted, one.error), one.error
    assert ended(one) == f"RankFailed: {one.error}"
    assert ("Traceback" in log.read_text()) == (do in ("trip", "fill"))


# Signals


@pytest.mark.parametrize(
    ("number", "group", "status"),
    [
        (signal.SIGINT, True, 130),
        (signal.SIGTERM, False, 143),
        pytest.param(signal.SIGHUP, True, 143, marks=pytest.mark.long),
    ],
)
def test_each_rank_gets_a_signal_once_and_has_time(number, group, status, tmp_path):
    with Walk(tmp_path, "--do", "finish", "--seconds", "0.5") as one:
        one.ready()
        (os.killpg if group else os.kill)(one.process.pid, number)
        time.sleep(0.1)
        one.process.send_signal(number)  # as `timeout` does, which signals its child and then the group
        one.done()
    passed = signal.SIGTERM if number == signal.SIGHUP else number
    for rank in (0, 1):
        assert json.loads((one.folder / f"seen-{rank}").read_text()) == [passed]
    assert (one.status, one.error) == (status, "Stopped at step 3.")


@pytest.mark.long
def test_a_rank_may_take_longer_to_save_than_torch_would_wait(tmp_path):
    with Walk(tmp_path, "--do", "finish", "--seconds", "40") as one:
        one.ready().process.send_signal(signal.SIGINT)
        one.done(timeout=90)
    assert (one.status, one.error) == (130, "Stopped at step 3.")


@pytest.mark.parametrize("do", ["wait", "miss"])
def test_a_command_that_does_not_listen_is_interrupted_in_every_rank(do, tmp_path):
    with Walk(tmp_path, "--do", do, "--seconds", "600") as one:
        pids = one.ready().pids()
        one.process.send_signal(signal.SIGTERM)
        one.done()
    assert one.status == 143 and one.err.splitlines()[-1] == "interrupted: SIGTERM" and "Traceback" not in one.err
    assert gone(pids)


def test_a_rank_that_is_killed_after_its_last_word_has_said_it(tmp_path):
    with Walk(tmp_path, "--do", "late", "--seconds", "600") as one:
        one.ready().process.send_signal(signal.SIGTERM)
        one.done()
    assert (one.status, one.error) == (143, "Stopped at step 3.")


def test_a_folder_that_cannot_be_created_is_told(tmp_path):
    one = walk(tmp_path, "--to", "/proc/none/out")
    assert (one.status, one.error) == (
        2,
        "/proc/none/out/logs cannot be created (No such file or directory). Choose another --output_dir.",
    )


def test_the_second_signal_ends_at_once_what_does_not_listen(tmp_path):
    with Walk(tmp_path, "--do", "ignore", "--seconds", "600") as one:
        pids = one.ready().pids()
        one.process.send_signal(signal.SIGINT)
        time.sleep(1.2)
        assert one.process.poll() is None
        one.process.send_signal(signal.SIGINT)
        one.done()
    assert one.status == 130 and one.err.splitlines()[-1] == "interrupted"
    assert gone(pids)


def test_nothing_survives_a_launcher_that_is_killed(tmp_path):
    with Walk(tmp_path, "--do", "wait", "--seconds", "600") as one:
        pids = one.ready().pids()
        one.process.kill()
        assert len(pids) == 4 and gone(pids)


def test_children_of_a_rank_that_is_killed_are_ended(tmp_path):
    with Walk(tmp_path, "--do", "wait", "--seconds", "600") as one:
        pids = one.ready().pids()
        os.kill(int((one.folder / "ready-1").read_text().split()[0]), signal.SIGKILL)
        one.done()
    assert "Rank 1 on" in one.error and "SIGKILL" in one.error and gone(pids)


@pytest.mark.long
def test_a_run_under_nohup_outlives_its_terminal(tmp_path):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        one = Walk(tmp_path, "--do", "wait", "--seconds", "2")
    finally:
        signal.signal(signal.SIGHUP, before)
    with one:
        os.killpg(one.ready().process.pid, signal.SIGHUP)
        assert one.done().status == 0, one.err
