"""What PEFT refuses, said in our words."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from martlet import CheckpointError, MartletError, UsageError


@contextmanager
def refused(where: str = "") -> Iterator[None]:
    """Turn an error of PEFT's into one of ours; ``where`` begins its message."""
    from pickle import UnpicklingError

    from safetensors import SafetensorError

    try:
        yield
    except MartletError:
        raise
    except SafetensorError as error:
        raise CheckpointError(f"{where}adapter_model.safetensors is damaged ({first_line(error)}).") from error
    except UnpicklingError as error:
        raise CheckpointError(f"{where}adapter_model.bin holds more than tensors, so it was not read.") from error
    except (ValueError, TypeError, KeyError, NotImplementedError) as error:
        raise UsageError(f"{where}PEFT refuses this adapter: {first_line(error)}") from error
    except RuntimeError as error:
        raise CheckpointError(f"{where}the adapter does not fit this model: {first_line(error)}") from error


def first_line(error: BaseException) -> str:
    """Return the first line of what an error says that is more than a heading, or its type."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return next((line for line in lines if not line.endswith(":")), lines[0] if lines else type(error).__name__)
