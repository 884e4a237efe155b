"""Ranks start as the command line says, and however they end, one sentence says so and nothing is left behind."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

HERE = Path(__file__).parent
COUNT = {"NPROC_PER_NODE": "2"}
CLEAN = {
    k: v for k, v in os.environ.items() if not k.startswith(("MARTLET_", "TORCHELASTIC")) and k != "OMP_NUM_THREADS"
}


class Walk:
    """``martlet walk`` in a process of its own."""

    def __init__(self, folder: Path, *words: str, variables: dict[str, str] = COUNT, plugin: str | None = None) -> None:
        self.folder = folder / "out"
        program = [str(Path(sys.executable).with_name("martlet")), "walk", "--to", "out"]
        plugin = os.path.relpath(HERE / "walk.py", folder) if plugin is None else plugin
        program += [*(["--external_plugins", plugin] if plugin else []), *words]
        self.process = subprocess.Popen(
            program,
            cwd=folder,
            env=CLEAN | variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def __enter__(self) -> Walk:
        return self

    def __exit__(self, *error: object) -> None:
        for pid in self.pids() if self.process.poll() is None else ():
            if alive(pid):
                os.kill(pid, signal.SIGKILL)
        self.process.kill()
        self.process.communicate()

    def done(self, timeout: float = 60) -> Walk:
        self.out, self.err = self.process.communicate(timeout=timeout)
        self.status = self.process.returncode
        return self

    def ready(self, count: int = 2) -> Walk:
        """Wait until the ranks are where they are told to be."""
        deadline = time.monotonic() + 60
        while len(list(self.folder.glob("ready-*"))) < count or not all(self.pids()):
            assert self.process.poll() is None and time.monotonic() < deadline, self.process.communicate(timeout=5)
            time.sleep(0.05)
        return self

    def pids(self) -> list[int]:
        """Return the ranks and their children."""
        return [int(pid) for file in self.folder.glob("ready-*") for pid in file.read_text().split() or ["0"]]

    def rank(self, number: int) -> dict[str, object]:
        return json.loads((self.folder / f"{number}.json").read_text())

    @property
    def error(self) -> str:
        lines = self.err.rstrip("\n").splitlines()
        said = [line for line in lines if line.startswith("error: ")]
        assert len(said) == 1 and lines[-1] == said[0] and "Traceback" not in self.err, self.err
        return said[0].removeprefix("error: ")


def walk(folder: Path, *words: str, **more: object) -> Walk:
    with Walk(folder, *words, **more) as one:
        return one.done()


def alive(pid: int) -> bool:
    """Tell whether a process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def gone(pids: list[int], within: float = 5.0) -> bool:
    deadline = time.monotonic() + within
    while any(map(alive, pids)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not any(map(alive, pids))


def free_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as one:
        return str(one.getsockname()[1])


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


def ended(one: Walk) -> str:
    return json.loads((one.folder / "run.json").read_text())["ended"]["outcome"]


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


def test_a_command_that_does_not_listen_is_interrupted(tmp_path):
    with Walk(tmp_path, "--do", "wait") as one:
        pids = one.ready().pids()
        one.process.send_signal(signal.SIGTERM)
        one.done()
    assert one.status == 143 and one.err.splitlines()[-1] == "interrupted: SIGTERM" and "Traceback" not in one.err
    assert gone(pids)


def test_the_second_signal_ends_at_once_what_does_not_listen(tmp_path):
    with Walk(tmp_path, "--do", "ignore", "--seconds", "600") as one:
        pids = one.ready().pids()
        one.process.send_signal(signal.SIGINT)
        time.sleep(1.2)
        assert one.process.poll() is None
        one.process.send_signal(signal.SIGINT)
        one.done(timeout=20)
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


# Several machines


def machines(folder: Path, *words: str, port: str = "", **more: object) -> list[Walk]:
    """Start machine 0 and machine 1 in folders of their own."""
    found, port = [], port or free_port()
    for number in (0, 1):
        (folder / str(number)).mkdir()
        variables = {"NNODES": "2", "NODE_RANK": str(number), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        found.append(Walk(folder / str(number), *words, variables=variables))
    return found


def test_two_machines_are_one_run_in_the_folder_of_the_first(tmp_path):
    first, second = machines(tmp_path)
    with first, second:
        assert (first.done().status, second.done().status) == (0, 0), first.err + second.err
    ranks = [first.rank(number) for number in (0, 1)]
    assert [(one["rank"], one["local_rank"], one["world_size"]) for one in ranks] == [(0, 0, 2), (1, 0, 2)]
    assert {one["MARTLET_RUN_FOLDER"] for one in ranks} == {str(first.folder)} and not second.folder.exists()
    assert first.out == "printed by 0\n" and second.out == ""


@pytest.mark.parametrize("early", [0, 1])
def test_a_machine_that_is_done_early_ends_soon_after_the_other(early, tmp_path):
    words = ("--do", "be_early", "--who", str(early), "--seconds", "2", "--ddp_timeout", "600")
    first, second = machines(tmp_path, *words)
    with first, second:
        assert (first.done().status, second.done().status) == (0, 0), first.err + second.err


def test_every_machine_names_the_rank_that_ended_the_run(tmp_path):
    first, second = machines(tmp_path, "--do", "leave", "--who", "1", "--seconds", "600")
    with first, second:
        first.done()
        second.done()
    assert first.status == second.status == 1
    assert first.error == second.error and first.error.startswith(
        f"Rank 1 on {socket.gethostname()} ended with status 7"
    )
    assert ended(first) == f"RankFailed: {first.error}"


@pytest.mark.long
def test_a_machine_that_falls_silent_is_not_waited_for_beyond_ddp_timeout(tmp_path):
    first, second = machines(tmp_path, "--do", "wait", "--seconds", "600", "--ddp_timeout", "10")
    with first, second:
        second.folder = first.folder
        pids = first.ready().pids()
        first.process.send_signal(signal.SIGSTOP)
        second.done()
        assert second.status == 1
        host = socket.gethostname()
        wanted = f"Machine 0 has not been heard of for 10 s; the processes on {host} were stopped."
        assert second.error == wanted
        first.process.send_signal(signal.SIGCONT)
        said = ("Machine 1 has not been heard of", "Another machine has failed and did not say why")
        assert first.done().status == 1 and first.error.startswith(said)  # the last line of machine 1 may have come
    assert gone(pids)


def test_machines_that_do_not_come_are_not_waited_for_beyond_ddp_timeout(tmp_path):
    here = {"NNODES": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
    words = ("--ddp_timeout", "1")
    with Walk(tmp_path, *words, variables=here | {"NODE_RANK": "0"}) as one:
        assert one.done().status == 1
        assert one.error.startswith("Machine 1 of 2 did not come within 1 s.")
    with Walk(tmp_path, *words, variables=here | {"NODE_RANK": "1"}) as one:
        assert one.done().status == 1
        assert one.error.startswith("Machine 1 did not reach machine 0 at 127.0.0.1, port ") and "1 s" in one.error


def test_waiting_for_other_machines_ends_with_a_signal(tmp_path):
    here = {"NNODES": "2", "NODE_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
    with Walk(tmp_path, variables=here) as one:
        while b":%04X" % int(here["MASTER_PORT"]) not in Path("/proc/net/tcp6").read_bytes():
            time.sleep(0.1)
        one.process.send_signal(signal.SIGINT)
        assert one.done(timeout=20).status == 130 and one.err.splitlines()[-1] == "interrupted"


def test_a_port_that_is_taken_is_named(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        one = walk(tmp_path, variables=COUNT | {"MASTER_PORT": str(port)})
    assert one.status == 2
    assert one.error == f"--master_port {port}: another program has this port. Choose another one."


def test_a_first_machine_that_is_elsewhere_is_told_at_once(tmp_path):
    here = {"NNODES": "2", "NODE_RANK": "0", "MASTER_ADDR": "nowhere.invalid", "MASTER_PORT": free_port()}
    with Walk(tmp_path, "--ddp_timeout", "600", variables=here) as one:
        assert one.done(timeout=60).status == 2
    assert one.error.startswith("--master_addr nowhere.invalid: machine 0 does not reach itself there (")
    assert len(one.err.splitlines()) == 1  # and nothing of torch's


def test_a_stranger_at_the_meeting_place_is_no_machine_of_the_run(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        stranger.settimeout(1)
        here = {"NNODES": "2", "NODE_RANK": "1", "MASTER_ADDR": "127.0.0.1"}
        port = {"MASTER_PORT": str(stranger.getsockname()[1])}
        with Walk(tmp_path, "--ddp_timeout", "1", variables=here | port) as one:
            while one.process.poll() is None:
                with suppress(TimeoutError):
                    stranger.accept()[0].close()
            assert one.done().status == 1
    assert one.error.startswith("What answers machine 1 at 127.0.0.1, port ")
    assert "Exception raised" not in one.err


def test_a_stranger_that_never_answers_is_not_waited_for_beyond_ddp_timeout(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as stranger:  # connections are taken, and nobody reads
        here = {"NNODES": "2", "NODE_RANK": "1", "MASTER_ADDR": "127.0.0.1"}
        port = {"MASTER_PORT": str(stranger.getsockname()[1])}
        with Walk(tmp_path, "--ddp_timeout", "1", variables=here | port) as one:
            assert one.done().status == 1
        assert "is not machine 0 of this run: it did not answer within 1 s" in one.error
        with Walk(tmp_path, "--ddp_timeout", "600", variables=here | port) as one:
            assert "Waiting for an answer" in one.process.stderr.readline()
            one.process.send_signal(signal.SIGINT)
            assert one.done().status == 130
