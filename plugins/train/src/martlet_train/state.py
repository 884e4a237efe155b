"""Optimizer, scheduler and random-number state as one safetensors file, exact to the bit and without pickle.

The tensors lie in the file under readable names (``state/0/exp_avg``), so that any safetensors reader can look at them.
What is not a tensor, and how everything is nested, is JSON in the file's metadata, under the key ``martlet.state``:

========================  =============================================================
None, bool, str           as in JSON
int, float                as in JSON; beyond 64 bit ``{"int": hex}``, inf and nan ``{"float": hex of its bytes}``
list                      as in JSON
dict                      ``{"dict": {...}}`` where all keys are str, else ``{"items": [[key, value], ...]}``
OrderedDict, Counter      ``{"ordered": [[key, value], ...]}``, ``{"counter": [[key, value], ...]}``
tuple                     ``{"tuple": [...]}``
torch.Tensor              ``{"tensor": name}``; of a type that safetensors lacks ``{"bytes": [name, dtype, shape]}``
numpy array, scalar       ``{"array": [name, dtype, shape]}``, ``{"scalar": [dtype, hex]}``
========================  =============================================================

Anything else is refused by its place in the state, not approximated. torch is imported when a function is called.
"""

from __future__ import annotations

import json
import math
import random
import struct
from collections import Counter, OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from martlet.errors import CheckpointError

if TYPE_CHECKING:
    import torch

KEY = "martlet.state"
VERSION = 1
_NATIVE = {
    "float64": "F64",
    "float32": "F32",
    "float16": "F16",
    "bfloat16": "BF16",
    "float8_e4m3fn": "F8_E4M3",
    "float8_e5m2": "F8_E5M2",
    "int64": "I64",
    "int32": "I32",
    "int16": "I16",
    "int8": "I8",
    "uint64": "U64",
    "uint32": "U32",
    "uint16": "U16",
    "uint8": "U8",
    "bool": "BOOL",
}
"""torch's names and those of the safetensors format, for the types that both have."""
_MAPPINGS: dict[str, type[dict[Any, Any]]] = {"items": dict, "ordered": OrderedDict, "counter": Counter}
_NUMPY_KINDS = "biufcmMUS"
_HEADER_LIMIT = 2**24
"""A longer structure goes into a tensor of bytes: readers of the format refuse headers beyond 100 MB."""
_ACCELERATORS = ("cuda", "xpu", "npu", "mlu", "musa")


def save_state(path: Path, state: Any) -> None:
    """Write nested state to ``path``, one tensor in memory at a time.

    Tensors come back on the CPU, contiguous and without gradient. The same tensor at two places is written once and
    is one tensor again after loading. Raises ``CheckpointError`` for a value that could not be restored exactly.
    """
    encoder = _Encoder()
    structure = json.dumps({"version": VERSION, "state": encoder.encode(state, "")}, separators=(",", ":"))
    if len(structure) > _HEADER_LIMIT:
        structure = json.dumps({"version": VERSION, "in": encoder.add_bytes(structure.encode("ascii"), KEY)})
    # Wide types first keeps every tensor aligned to its element size, as the format asks for.
    tensors = sorted(encoder.tensors.items(), key=lambda item: (-item[1].element_size(), item[0]))
    header: dict[str, Any] = {"__metadata__": {"format": "pt", KEY: structure}}
    start = 0
    for name, tensor in tensors:
        end = start + tensor.numel() * tensor.element_size()
        header[name] = {"dtype": _NATIVE[_name(tensor)], "shape": list(tensor.shape), "data_offsets": [start, end]}
        start = end
    head = json.dumps(header, separators=(",", ":")).encode("ascii")
    head += b" " * (-len(head) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(head)) + head)
        for _, tensor in tensors:
            file.write(_bytes(tensor))


def load_state(path: Path) -> Any:
    """Return what ``save_state`` wrote. Raises ``CheckpointError`` where the file is not exactly that."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="pt") as file:
            document = json.loads((file.metadata() or {}).get(KEY, "null"))
            # The reader maps the file; a copy lives on when the checkpoint is deleted or moved.
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
        if not isinstance(document, dict):
            raise CheckpointError(f"{path} holds no training state that Martlet wrote. Choose another checkpoint.")
        if document["version"] > VERSION:
            raise CheckpointError(f"{path} was written by a newer version of martlet-train. Upgrade it to resume.")
        if "in" in document:
            document = json.loads(tensors[document["in"]].numpy().tobytes())
        return _decode(document["state"], tensors)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error}. Choose another checkpoint.") from error
    except (SafetensorError, KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{path} is damaged ({error}). Choose another checkpoint.") from error


class _Encoder:
    """Turn state into a JSON structure, collecting the tensors by name."""

    def __init__(self) -> None:
        import numpy
        import torch

        self.np, self.torch = numpy, torch
        self.tensors: dict[str, torch.Tensor] = {}
        self._written: dict[int, tuple[Any, dict[str, Any]]] = {}

    def encode(self, value: Any, place: str) -> Any:
        kind = type(value)
        if value is None or kind in (bool, str):
            return value
        if kind is int:
            return value if -(2**63) <= value < 2**64 else {"int": hex(value)}
        if kind is float:
            return value if math.isfinite(value) else {"float": struct.pack("<d", value).hex()}
        if kind in (list, tuple):
            items = [self.encode(item, f"{place}/{index}") for index, item in enumerate(value)]
            return items if kind is list else {"tuple": items}
        if kind is dict and all(type(key) is str for key in value):
            return {"dict": {key: self.encode(item, f"{place}/{key}") for key, item in value.items()}}
        for tag, mapping in _MAPPINGS.items():
            if kind is mapping:
                pairs = value.items()
                return {tag: [[self.encode(k, f"{place} (a key)"), self.encode(v, f"{place}/{k}")] for k, v in pairs]}
        if isinstance(value, (self.torch.Tensor, self.np.ndarray, self.np.generic)):
            return self._encode_array(value, place)
        raise self._refuse(value, place)

    def _encode_array(self, value: Any, place: str) -> Any:
        if id(value) in self._written:
            return self._written[id(value)][1]
        if isinstance(value, self.torch.Tensor):
            code = self._encode_tensor(value, place)
        else:
            if type(value) is not self.np.ndarray and not isinstance(value, self.np.generic):
                raise self._refuse(value, place)
            if value.dtype.kind not in _NUMPY_KINDS:
                raise self._refuse(value, place, f"numpy array of type {value.dtype}")
            if isinstance(value, self.np.generic):
                return {"scalar": [value.dtype.str, value.tobytes().hex()]}
            code = {"array": [self.add_bytes(value.tobytes(), place), value.dtype.str, list(value.shape)]}
        self._written[id(value)] = (value, code)  # held, so that its id is not given to another object
        return code

    def _encode_tensor(self, value: torch.Tensor, place: str) -> Any:
        plain = type(value) in (self.torch.Tensor, self.torch.nn.Parameter, self.torch.nn.Buffer)
        if not plain or value.layout != self.torch.strided or value.is_quantized or value.is_meta:
            raise self._refuse(value, place, f"{type(value).__name__} ({value.layout}, {value.dtype}, {value.device})")
        tensor = value.detach().resolve_conj().resolve_neg()
        if _name(tensor) in _NATIVE:
            return {"tensor": self._add(tensor, place)}
        raw = tensor.contiguous().reshape(-1).view(self.torch.uint8)
        return {"bytes": [self._add(raw, place), _name(tensor), list(tensor.shape)]}

    def add_bytes(self, data: bytes, place: str) -> str:
        """Keep bytes as a tensor; return its name."""
        array = self.np.frombuffer(bytearray(data), dtype=self.np.uint8)
        return self._add(self.torch.from_numpy(array), place)

    def _add(self, tensor: torch.Tensor, place: str) -> str:
        wanted = place.strip("/").encode("ascii", "backslashreplace").decode() or "value"
        name, count = wanted, 1
        while name in self.tensors or name == "__metadata__":
            count += 1
            name = f"{wanted}#{count}"
        self.tensors[name] = tensor
        return name

    @staticmethod
    def _refuse(value: Any, place: str, what: str = "") -> CheckpointError:
        what = what or f"a value of type {type(value).__module__}.{type(value).__qualname__}"
        return CheckpointError(
            f"The training state cannot be saved exactly: {what} at {place or 'its top'}. Give the optimizer, "
            "scheduler or callback that owns it a state_dict of plain values, tensors and numpy arrays."
        )


def _decode(code: Any, tensors: dict[str, torch.Tensor]) -> Any:
    if isinstance(code, list):
        return [_decode(item, tensors) for item in code]
    if not isinstance(code, dict):
        return code
    ((tag, content),) = code.items()
    if tag == "dict":
        return {key: _decode(item, tensors) for key, item in content.items()}
    if tag in _MAPPINGS:
        return _MAPPINGS[tag]({_decode(key, tensors): _decode(item, tensors) for key, item in content})
    if tag == "tuple":
        return tuple(_decode(item, tensors) for item in content)
    if tag == "tensor":
        return tensors[content]
    if tag == "int":
        return int(content, 16)
    if tag == "float":
        return struct.unpack("<d", bytes.fromhex(content))[0]
    return _decode_array(tag, content, tensors)


def _decode_array(tag: str, content: list[Any], tensors: dict[str, torch.Tensor]) -> Any:
    import numpy
    import torch

    if tag == "scalar":
        dtype, data = content
        return numpy.ndarray((), _numpy_type(dtype), bytes.fromhex(data))[()]
    name, dtype, shape = content
    if tag == "bytes":
        kind = getattr(torch, dtype)
        if not isinstance(kind, torch.dtype):
            raise ValueError(f"unknown tensor type {dtype!r}")
        return _once(tensors, name, lambda raw: raw.view(kind).reshape(shape))
    if tag == "array":
        kind = _numpy_type(dtype)
        # A copy: it owns its memory and can be written to.
        return _once(tensors, name, lambda raw: numpy.ndarray(shape, kind, raw.numpy().tobytes()).copy())
    raise ValueError(f"unknown entry {tag!r}")


def _numpy_type(name: str) -> Any:
    import numpy

    dtype = numpy.dtype(name)
    if dtype.kind not in _NUMPY_KINDS:
        raise ValueError(f"unknown array type {name!r}")
    return dtype


def _once(tensors: dict[str, Any], name: str, convert: Any) -> Any:
    """Convert the raw bytes under ``name`` the first time; the same object again afterwards."""
    done = f"{name}\0"
    if done not in tensors:
        tensors[done] = convert(tensors[name])
    return tensors[done]


def _name(tensor: torch.Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _bytes(tensor: torch.Tensor) -> memoryview:
    """Return the tensor's memory, copied only where it is on a device or not contiguous."""
    import torch

    return tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data


def load_optimizer(optimizer: Any, state: dict[str, Any]) -> None:
    """Call ``optimizer.load_state_dict`` and keep the types that were saved.

    torch casts floating-point state to the type of its parameter, so optimizers that keep float32 moments of bfloat16
    weights (Adafactor, say) would go on from rounded ones. Raises ``CheckpointError`` where the parameters differ.
    """
    import torch

    inner = getattr(optimizer, "optimizer", optimizer)  # accelerate wraps it
    settings = set(inner.param_groups[0])
    try:
        optimizer.load_state_dict(state)
        if missing := sorted(settings - inner.param_groups[0].keys()):  # torch would find out in the first step
            raise ValueError(f"it has no {', '.join(missing)}")
    except (ValueError, KeyError) as error:
        raise CheckpointError(
            f"The optimizer state does not fit what is trained now ({error}). Resume with the tuner, target "
            "modules and optimizer of the first run, or take the weights alone with --resume_only_model true."
        ) from error
    saved = [number for group in state["param_groups"] for number in group["params"]]
    parameters = [parameter for group in inner.param_groups for parameter in group["params"]]
    for number, parameter in zip(saved, parameters, strict=True):
        current = inner.state.get(parameter, {})
        for name, value in state["state"].get(number, {}).items():
            now = current.get(name)
            if isinstance(value, torch.Tensor) and isinstance(now, torch.Tensor) and now.dtype != value.dtype:
                current[name] = value.to(now.device, copy=True)


def rng_state() -> dict[str, Any]:
    """Return the state of every random generator in use: Python, numpy, torch on the CPU and on all devices."""
    import numpy
    import torch

    state: dict[str, Any] = {
        "python": random.getstate(),
        "numpy": numpy.random.get_state(legacy=False),
        "torch": torch.get_rng_state(),
    }
    for name in _ACCELERATORS:
        device = getattr(torch, name, None)
        # A device that this process never touched has drawn nothing, and asking would create its context.
        if device is not None and device.is_available() and device.is_initialized():
            state[name] = device.get_rng_state_all()
    if torch.backends.mps.is_available():
        state["mps"] = torch.mps.get_rng_state()
    return state


def set_rng_state(state: dict[str, Any]) -> None:
    """Put back what ``rng_state`` returned. Devices that this machine does not have are passed over."""
    import numpy
    import torch

    random.setstate(state["python"])
    numpy.random.set_state(state["numpy"])
    torch.set_rng_state(state["torch"])
    for name in _ACCELERATORS:
        device = getattr(torch, name, None)
        if name in state and device is not None and device.is_available():
            for index, value in enumerate(state[name][: device.device_count()]):
                device.set_rng_state(value, index)
    if "mps" in state and torch.backends.mps.is_available():
        torch.mps.set_rng_state(state["mps"])
