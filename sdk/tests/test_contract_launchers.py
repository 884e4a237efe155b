"""Launchers with one fault each fail the check that is about it."""

from __future__ import annotations

import pytest

LAUNCHERS = [
    ("def pair(run)", "def pair(run, count)", "takes_a_run", "cannot be called with the run"),
    ("return max(", "max(", "starts_ranks", "it returned None for ranks that ended well; return 0."),
    ("for number in (0, 1)", "for number in (0,)", "starts_ranks", "1 of several processes ran the command."),
    ('"RANK": str(number)', '"RANK": "1"', "starts_ranks", "RANK of its 2 processes was [1, 1]"),
    ('"WORLD_SIZE": "2"', '"WORLD_SIZE": "3"', "starts_ranks", "rank 0 had world_size 3, not 2."),
    ("list(run.words)", "[word.replace('$$', '$') for word in run.words]", "starts_ranks", "rank 0 had text"),
    ('"MARTLET_RUN_FOLDER"', '"FOLDER"', "starts_ranks", "rank 0 had folder '', not"),
    ("max(rank.wait() for rank in ranks)", "ranks[0].wait()", "tells_failure", "rank 1 failed, and it returned 0."),
]


@pytest.mark.parametrize(("old", "new", "check", "said"), LAUNCHERS, ids=[row[3][:30] for row in LAUNCHERS])
def test_launcher(old, new, check, said, fails):
    fails("launcher", old, new, f"launchers:pair:{check}", said)
