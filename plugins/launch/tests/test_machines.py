"""Several machines are one run: they meet, end together, and wait for nobody beyond ``--ddp_timeout``."""

from __future__ import annotations

import signal
import socket
import time
from contextlib import suppress
from pathlib import Path

import pytest
from walking import COUNT, Walk, ended, free_port, gone, walk


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
        assert one.done().status == 130 and one.err.splitlines()[-1] == "interrupted"


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
    assert one.error.startswith("What machine 1 reaches at 127.0.0.1, port ")
    assert "is not machine 0 of this run (" in one.error
    assert "Exception raised" not in one.err


def test_a_stranger_that_never_answers_is_not_waited_for_beyond_ddp_timeout(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as stranger:  # connections are taken, and nobody reads
        here = {"NNODES": "2", "NODE_RANK": "1", "MASTER_ADDR": "127.0.0.1"}
        port = {"MASTER_PORT": str(stranger.getsockname()[1])}
        with Walk(tmp_path, "--ddp_timeout", "1", variables=here | port) as one:
            assert one.done().status == 1
        assert "is not machine 0 of this run (no answer within 1 s)" in one.error
        with Walk(tmp_path, "--ddp_timeout", "600", variables=here | port) as one:
            assert "Waiting for an answer" in one.process.stderr.readline()
            one.process.send_signal(signal.SIGINT)
            assert one.done().status == 130
