"""Several processes that want the same rows encoded: one does it, the others find what it kept."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

import pytest

from martlet_data.api import prepare
from martlet_data.cache import cache_folder


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("MODELSCOPE_CACHE", str(tmp_path / "cache"))
    return cache_folder()


def test_of_two_at_a_time_one_encodes_and_the_other_waits_for_it(data_run, bound, cache, chats, logged, monkeypatch):
    encoding, seen = prepare.__globals__["encode_with"], []

    def slow(run, works, *more):
        seen.append(len(works))
        deadline = time.monotonic() + 60
        while works and not any("Waiting for another process" in line for line in logged):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        return encoding(run, works, *more)

    monkeypatch.setitem(prepare.__globals__, "encode_with", slow)
    runs = [data_run(folder=True, load_from_cache_file=True, dataset=[chats()]) for _ in range(2)]
    with ThreadPoolExecutor(2) as both:
        one, two = both.map(prepare, runs, [bound(run) for run in runs])
    assert one.fingerprint == two.fingerprint
    assert all((a.input_ids == b.input_ids).all() for a, b in zip(one.train, two.train, strict=True))
    assert sorted(seen) == [0, 1]  # datasets that each encoded
    assert sum("Waiting for another process that encodes the same rows" in line for line in logged) == 1
    assert len(list(cache.iterdir())) == 1


def test_where_nothing_can_be_locked_rows_are_encoded_all_the_same(data_run, bound, cache, chats):
    cache.parent.mkdir(parents=True)
    (cache.parent / "locks").write_text("in the way")
    run = data_run(folder=True, load_from_cache_file=True, dataset=[chats()])
    assert len(prepare(run, bound(run)).train) == 20
    assert len(list(cache.iterdir())) == 1
    assert run.record.warnings == []


def test_who_does_not_get_on_is_not_waited_for(data_run, bound, cache, chats, monkeypatch):
    monkeypatch.setattr("martlet_data.cache.PATIENCE", 1.0)
    runs = [data_run(folder=True, load_from_cache_file=True, dataset=[chats()]) for _ in range(2)]
    entered, leave = Event(), Event()
    encoding = prepare.__globals__["encode_with"]

    def hang(run, works, *more):
        if run is runs[0]:
            entered.set()
            leave.wait(60)
        return encoding(run, works, *more)

    monkeypatch.setitem(prepare.__globals__, "encode_with", hang)
    with ThreadPoolExecutor(1) as other:
        first = other.submit(prepare, runs[0], bound(runs[0]))
        entered.wait(60)
        second = prepare(runs[1], bound(runs[1]))
        assert not first.done()
        leave.set()
    assert second.fingerprint == first.result().fingerprint
    (warning,) = runs[1].record.warnings
    assert "has encoded nothing for 1 s: it is no longer waited for" in warning
    assert runs[0].record.warnings == []
    assert len(list(cache.iterdir())) == 1


def test_who_gets_on_is_waited_for_however_long_it_takes(data_run, bound, cache, chats, monkeypatch):
    monkeypatch.setattr("martlet_data.cache.PATIENCE", 4.0)
    monkeypatch.setattr("martlet_data.cache.PAUSE", 0.1)
    runs = [data_run(folder=True, load_from_cache_file=True, dataset=[chats()]) for _ in range(2)]
    entered, encoding, seen = Event(), prepare.__globals__["encode_with"], []

    def slowly(run, works, parts, get_on):
        seen.append(run)
        entered.set()
        for _ in range(25 if works else 0):
            time.sleep(0.2)
            get_on()
        return encoding(run, works, parts, get_on)

    monkeypatch.setitem(prepare.__globals__, "encode_with", slowly)
    with ThreadPoolExecutor(1) as other:
        first = other.submit(prepare, runs[0], bound(runs[0]))
        entered.wait(60)
        second = prepare(runs[1], bound(runs[1]))
    assert second.fingerprint == first.result().fingerprint
    assert runs[1].record.warnings == []
    assert seen == runs
    assert [path.suffix for path in (cache.parent / "locks").iterdir()] == [".lock"]
