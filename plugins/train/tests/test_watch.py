"""What processes tell one another in words: differences before the start, signals, and which of them is lost."""

from __future__ import annotations

import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
import torch.distributed as dist

from martlet import MartletError, Process
from martlet_train import joining, watch
from martlet_train.agreement import agree
from martlet_train.interruption import Interruption
from martlet_train.joining import Meeting
from martlet_train.watch import Watch, is_broken_transfer


def meetings(size=2, timeout=5.0):
    store = dist.HashStore()
    return [Meeting(rank, size, store, timeout) for rank in range(size)]


def test_processes_that_are_alike_agree_and_others_are_told_line_by_line():
    one, two, three = meetings(3)
    facts = [{"--a": ("1", "default"), "library x": ("2.0", "")}, {"--a": ("2", "command line")}]

    def told(meeting, mine):
        try:
            agree(meeting, "t", mine, "Mend it.")
        except MartletError as error:
            return str(error).splitlines()

    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(told, (one, two, three), (facts[0], facts[1], facts[0])))
    assert found[0] == found[1] == found[2]
    first, *lines = found[0]
    assert first.endswith("Mend it.")
    assert [line.split(": ", 1)[1] for line in lines] == [
        "--a 1 (default)",
        "--a 2 (command line)",
        "library x 2.0",
        "library x absent",
    ]
    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(told, meetings(), (facts[0], facts[0]))) == [None, None]


def test_a_process_that_never_comes_is_named():
    one = meetings(timeout=0.2)[0]
    with pytest.raises(MartletError, match=r"Rank 1 of 2 has not come within 0.2 s \(--ddp_timeout\)"):
        one.exchange("folder", "here")


def test_a_signal_counts_for_all_processes_once_they_have_told_one_another(capsys):
    both = [Interruption(Process(rank, rank, 2, "rank")) for rank in (0, 1)]
    both[1]._note(signal.SIGTERM, None)
    both[1]._note(signal.SIGTERM, None)  # passed on by a launcher as well: the same one
    assert [one.signal for one in both] == [None, None]
    votes = [sum(pair) for pair in zip(*(one.votes() for one in both), strict=True)]
    for one in both:
        one.count(votes)
    assert [one.signal for one in both] == [signal.SIGTERM] * 2
    assert capsys.readouterr().err.count("SIGTERM: finishing this step") == 1
    both[1]._when -= 2
    with pytest.raises(KeyboardInterrupt):
        both[1]._note(signal.SIGTERM, None)


def test_one_process_needs_no_telling(capsys):
    alone = Interruption()
    alone._note(signal.SIGINT, None)
    assert alone.signal == signal.SIGINT
    with pytest.raises(KeyboardInterrupt):
        alone._note(signal.SIGINT, None)


def run(folder):
    return SimpleNamespace(folder=folder, record=SimpleNamespace(end=lambda error: None))


@pytest.fixture
def pair(tmp_path, monkeypatch):
    """Return the watches of two processes; nobody waits long."""
    monkeypatch.setattr(watch, "PATIENCE", 0.5)
    monkeypatch.setattr(watch, "_leave", lambda: None)
    monkeypatch.setattr(watch, "_hold_signals", lambda: None)
    return [Watch(run(tmp_path), meeting) for meeting in meetings()]


def broken():
    raise RuntimeError("[/third_party/gloo/gloo/transport/tcp/pair.cc:553] Connection closed by peer")


def lost_by(one):
    one._thread.start()
    with pytest.raises(watch.Lost) as caught:
        try:
            broken()
        except RuntimeError as error:
            one.__exit__(type(error), error, None)
    return str(caught.value)


def test_an_error_of_one_is_what_the_others_say(pair):
    one, two = pair
    one.step = two.step = 4
    one._tell()
    two._thread.start()
    two.__exit__(ValueError, ValueError("no such moon"), None)
    said = lost_by(one)
    assert said.startswith("Rank 1 on ") and "failed after step 4: ValueError: no such moon. There is no" in said


def test_silence_and_signs_of_life_are_told_apart(pair):
    one, two = pair
    one._tell()
    two._tell()
    assert "is gone or stopped before its first step ended" in lost_by(one)
    again = Watch(one.run, one.meeting)
    alive = threading.Event()

    def live():
        while not alive.wait(0.05):
            two._tell()

    with ThreadPoolExecutor(1) as pool:
        pool.submit(live)
        said = lost_by(again)
        alive.set()
    assert "hangs, or is busy with something else" in said and "(--ddp_timeout 5)" in said


def test_where_transfers_never_raise_the_silent_process_is_found_by_the_thread(pair):
    one, two = pair
    one._tell()
    two._tell()
    one.meeting.timeout = 0.3
    assert one._overdue() == ""
    time.sleep(0.5)
    assert one._overdue().startswith("Rank 1 on ")
    two._tell(ended=True)
    assert one._overdue() == ""


def test_lines_are_written_for_a_launcher_that_asks(pair, tmp_path, monkeypatch):
    monkeypatch.setenv(watch.FILES, str(tmp_path))
    pair[1].step = 7
    pair[1]._tell(error="it is over")
    assert '"step": 7' in (tmp_path / "1.json").read_text() and '"it is over"' in (tmp_path / "1.json").read_text()


def test_a_broken_transfer_is_known_through_what_it_caused():
    try:
        try:
            broken()
        except RuntimeError as error:
            raise MartletError("Callback X failed") from error
    except MartletError as caught:
        assert is_broken_transfer(caught)
    assert is_broken_transfer(dist.DistNetworkError("gone"))
    assert not is_broken_transfer(RuntimeError("shapes differ")) and not is_broken_transfer(None)


def test_the_time_to_tell_is_taken_from_the_timeout(prepare, monkeypatch):
    """So that a run ends within it, and not some seconds later."""
    asked = {}
    monkeypatch.setattr(joining, "_meet", lambda *place: dist.HashStore())
    monkeypatch.setattr(dist, "init_process_group", lambda backend, **more: asked.update(more, backend=backend))
    monkeypatch.setattr(dist.HashStore, "clone", lambda self: self, raising=False)
    for timeout, wait in ((60, 57.0), (2, 1.0)):
        one = prepare(ddp_timeout=timeout)
        one.process = Process(1, 1, 2, "rank")
        meeting = joining.join(one)
        assert meeting.timeout == timeout and asked["timeout"].total_seconds() == wait
        assert (asked["backend"], asked["rank"], asked["world_size"]) == ("gloo", 1, 2)
    assert joining.join(prepare()) is None


def test_a_checkpoint_of_an_earlier_run_is_not_this_ones(tmp_path, prepare):
    from martlet_train.checkpoint import write_checkpoint

    one = prepare(save_only_model=True)
    one.folder = tmp_path / "sp ace"
    one.folder.mkdir()
    write_checkpoint(one.folder / "checkpoint-2", lambda folder: (folder / "file").write_text("x"), facts={})
    os.utime(one.folder / "checkpoint-2" / "checkpoint.json", (1, 1))
    mine = Watch(one, meetings()[0])
    assert mine._way_on() == "There is no checkpoint of this run yet."
    write_checkpoint(one.folder / "checkpoint-4", lambda folder: (folder / "file").write_text("x"), facts={})
    assert mine._way_on() == (
        f"To continue from the last checkpoint, add --resume_from_checkpoint '{one.folder}/checkpoint-4' "
        "--resume_only_model true to the same command."
    )
