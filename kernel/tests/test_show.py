"""``martlet plugin show NAME``."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.usefixtures("sdk")

LOSS = """
from martlet import Loss, hookimpl

@hookimpl
def provide_losses():
    yield Loss('{name}', 'no_such:x', summary='A slope.', defaults={{'rate': 9}})
"""


@pytest.fixture
def show(cli):
    def call(*words: str) -> str:
        result = cli("plugin", "show", *words)
        assert result.code == 0, result.err
        return result.out

    return call


def test_a_plugin_is_shown_with_origin_version_hooks_and_components(site, show):
    site.install("hills", LOSS.format(name="steep"), version="1.4")
    text = show("hills")
    for part in ("hills", "1.4", "acme-hills", "provide_losses", "steep"):
        assert part in text


def test_a_component_is_shown_with_its_facts_without_importing_it(site, show):
    site.install("hills", LOSS.format(name="steep"))
    text = show("steep")
    for part in ("hills::steep", "no_such:x", "A slope.", "rate"):
        assert part in text


def test_an_owner_picks_one_of_two(site, show):
    for name in ("hills", "slopes"):
        site.install(name, LOSS.format(name="steep"))
    assert "hills::steep" in show("steep") and "slopes::steep" in show("steep")
    assert "hills::steep" not in show("slopes::steep")


def test_a_broken_plugin_is_shown_with_its_error(site, show):
    site.install("broken", "raise RuntimeError('no driver')")
    assert "no driver" in show("broken")


def test_an_unknown_name_suggests_the_nearest(site, refused):
    site.install("hills", LOSS.format(name="steep"))
    assert "steep" in refused("plugin", "show", "stepe")


@pytest.mark.parametrize("words", [[], ["a", "b"]])
def test_it_takes_one_name(refused, words):
    assert "one name" in refused("plugin", "show", *words)
