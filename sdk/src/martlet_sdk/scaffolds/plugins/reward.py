"""What this package adds to Martlet. Imported for every listing, so nothing heavy is imported here."""

from collections.abc import Iterator

from martlet import Reward, hookimpl


@hookimpl
def provide_rewards() -> Iterator[Reward]:
    yield Reward("my-name", "martlet_my_name.reward:my_name", summary="1 for an empty answer, less for a longer one.")
