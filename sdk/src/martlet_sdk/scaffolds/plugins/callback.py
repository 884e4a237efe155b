"""What this package adds to Martlet. Imported for every listing, so nothing heavy is imported here."""

from collections.abc import Iterator

from martlet import Callback, hookimpl


@hookimpl
def provide_callbacks() -> Iterator[Callback]:
    yield Callback("my-name", "martlet_my_name.callback:MyNameCallback", summary="Prints each new lowest loss.")
