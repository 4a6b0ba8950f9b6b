"""A pretended CUDA device, so that device code is tested on machines without one.

An `Emulated` tensor holds real values on the CPU and says that it is on `cuda:0`. It refuses to mix
with CPU tensors as CUDA does, and everything that makes the host wait is counted by the function of
this repository that asked for it:

    with emulated() as device:
        x = torch.randn(8, 3).to(device)   # counted: a blocking copy
        x.sum().item()                     # counted: "item"
    device.waits, device.float64, device.launches

How it works: what Python code asks of a device (`device=`, `.to`, `.cpu`, `pin_memory`, …) passes
`_FromPython`; what torch then computes passes `Emulated.__torch_dispatch__`, where C++ code arrives
too. C++ takes an `Emulated` tensor for one on the CPU, so the devices that it names are ignored
there: what is computed from emulated tensors is emulated.

What it can't show: races other than a missing event between streams, the memory of a device, and
waits inside one operation of torch.
"""

from __future__ import annotations

import contextlib
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
from accelerator import streams
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map

CUDA = torch.device("cuda", 0)
CPU = torch.device("cpu")
ROOT = Path(__file__).parents[2]
_INNER = re.compile(r"(\.<locals>)?\.<\w+>")
_OURS = (str(ROOT / "fusemix_core"), str(ROOT / "plugins"))

_WAITS = {
    "_local_scalar_dense": "item",
    "equal": "equal",
    "is_nonzero": "item",
    "nonzero": "nonzero",
    "masked_select": "masked_select",
    "_unique2": "unique",
    "unique_dim": "unique",
    "unique_consecutive": "unique",
    "bincount": "bincount",
    "_linalg_check_errors": "linalg error check",
    "_sparse_addmm": "sparse product",
    "_coalesce": "coalesce",
}
"""Operations of torch whose result the host must read, or whose size depends on values."""

_VIEWS = {
    *("alias", "as_strided", "detach", "diagonal", "expand", "permute", "select", "slice", "split"),
    *("split_with_sizes", "squeeze", "t", "transpose", "unbind", "unsqueeze", "view", "unfold"),
    *("_unsafe_view", "_reshape_alias", "empty", "empty_like", "new_empty", "empty_strided"),
    *("new_empty_strided", "lift_fresh", "set_", "resize_"),
}
"""Operations that start no kernel."""


@dataclass
class Device:
    """What was asked of the emulated device: counts by (what, where), where is `file::function`."""

    waits: Counter[tuple[str, str]] = field(default_factory=Counter)
    float64: Counter[tuple[str, str]] = field(default_factory=Counter)
    launches: Counter[str] = field(default_factory=Counter)
    sent: int = 0
    """Bytes that were copied from the CPU."""

    def clear(self) -> None:
        self.sent = 0
        for counts in (self.waits, self.float64, self.launches):
            counts.clear()


_device = Device()


def place() -> str:
    """`file::function` of the innermost code of this repository, tests apart.

    Comprehensions and lambdas count as the function around them.
    """
    frame = sys._getframe(1)
    while frame is not None:
        code = frame.f_code
        if code.co_filename.startswith(_OURS) and "/tests/" not in code.co_filename:
            name = _INNER.sub("", code.co_qualname)
            return f"{Path(code.co_filename).relative_to(ROOT)}::{name}"
        frame = frame.f_back
    return "elsewhere"


def _waited(what: str) -> None:
    _device.waits[what, place()] += 1


class Emulated(Tensor):
    """A tensor on the emulated device. `held` has its values, on the CPU."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> Emulated:
        dense = held.layout == torch.strided
        tensor = Tensor._make_wrapper_subclass(
            cls,
            held.size(),
            strides=held.stride() if dense else None,
            storage_offset=held.storage_offset() if dense else None,
            dtype=held.dtype,
            layout=held.layout,
            device=CPU,
        )
        tensor.held = held
        streams.mark(tensor)
        return tensor

    device = property(lambda self: CUDA)
    is_cuda = property(lambda self: True)
    is_cpu = property(lambda self: False)

    def __repr__(self) -> str:
        return f"Emulated({self.held})"

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        copy: Tensor = Emulated(self.held.detach().clone())
        if isinstance(self, torch.nn.Parameter):
            copy = torch.nn.Parameter(copy, requires_grad=self.requires_grad)
        memo[id(self)] = copy
        return copy

    def __tensor_flatten__(self) -> tuple[list[str], None]:
        return ["held"], None

    @staticmethod
    def __tensor_unflatten__(held: dict[str, Tensor], *_: Any) -> Emulated:
        return Emulated(held["held"])

    def numpy(self, **_: Any) -> None:
        raise TypeError("can't convert cuda:0 device type tensor to numpy.")

    def __array__(self, *_: Any) -> None:
        self.numpy()

    def tolist(self) -> Any:
        _waited("tolist")
        return self.held.tolist()

    def record_stream(self, stream: Any) -> None:
        """Memory is not emulated."""

    def data_ptr(self) -> int:
        return self.held.data_ptr()

    @classmethod
    def __torch_dispatch__(
        cls, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name, kwargs = func.overloadpacket.__name__, dict(kwargs or {})
        tensors = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
        _check_devices(name, args, tensors)
        _count(name, args)
        for option in ("device", "pin_memory"):
            kwargs.pop(option, None)
        if func._overloadname.startswith("dtype") and name != "to":
            func, args = _in_float32(func, args)
        found = func(*tree_map(_held, args), **tree_map(_held, kwargs))
        if name == "copy_":
            return args[0]
        given = {id(t.held): t for t in tensors if isinstance(t, Emulated)}  # in place, or `out=`
        return tree_map(lambda x: _emulated(x, given) if isinstance(x, Tensor) else x, found)


def _in_float32(func: Any, args: tuple) -> tuple[Any, tuple]:
    """A product of float16 factors with float32 results, which only a GPU has."""
    factors = [_held(x).float() if isinstance(x, Tensor) else x for x in args]
    plain = "out" if func._overloadname.endswith("out") else "default"
    return getattr(func.overloadpacket, plain), tuple(x for x in factors if x is not torch.float32)


def _held(x: Any) -> Any:
    return x.held if isinstance(x, Emulated) else x


def _emulated(x: Tensor, given: dict[int, Emulated] | None = None) -> Tensor:
    if isinstance(x, Emulated):
        return x
    if x.dtype == torch.float64:
        _device.float64["float64", place()] += 1
    return given[id(x)] if given and id(x) in given else Emulated(x)


def _check_devices(name: str, args: tuple, tensors: list[Tensor]) -> None:
    """Raise as CUDA does where tensors on the CPU, numbers apart, meet emulated ones."""
    for tensor in tensors:
        streams.check(tensor)
    here = [t for t in tensors if not isinstance(t, Emulated) and t.dim()]
    if not here or name == "copy_":
        return
    if name in ("index", "index_put", "index_put_") and isinstance(args[0], Emulated):
        indices = [i for i in args[1] if i is not None]
        if all(any(t is i for i in indices) for t in here):
            _waited("index on the CPU")
            return
    raise RuntimeError(
        "Expected all tensors to be on the same device, but found at least two devices, cuda:0 and "
        f"cpu! ({name} in {place()})"
    )


def _count(name: str, args: tuple) -> None:
    if name not in _VIEWS:
        _device.launches[name] += 1
    if name in _WAITS:
        _waited(_WAITS[name])
    elif name in ("index", "index_put", "index_put_"):
        if any(i is not None and i.dtype in (torch.bool, torch.uint8) for i in args[1]):
            _waited("index by a mask")
    elif name == "repeat_interleave" and isinstance(args[0], Tensor):
        _waited(name)
    elif name == "copy_":
        to, source = args[:2]
        non_blocking = len(args) > 2 and bool(args[2])
        if not isinstance(to, Emulated):
            if not (non_blocking and getattr(to, "pinned", False)):
                _waited("copy to the CPU")
        elif not isinstance(source, Emulated):
            _count_sent(source, non_blocking)


def _count_sent(source: Tensor, non_blocking: bool) -> None:
    """A copy from the CPU waits unless its source is pinned; numbers go with the kernel."""
    _device.sent += source.nbytes if source.dim() else 0
    if source.dim() and not (non_blocking and getattr(source, "pinned", False)):
        _waited("copy from the CPU")


class _Moved(torch.autograd.Function):
    """A copy to the other device, with gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        with _no_function_modes():
            return x.held.clone() if isinstance(x, Emulated) else _emulated(x.detach().clone())

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return _Moved.apply(grad)


def _no_function_modes() -> Any:
    return torch._C.DisableTorchFunction()


def _moved(x: Tensor, device: Any, non_blocking: bool = False) -> Tensor:
    """`x.to(device)`, for a device that it is not on."""
    if isinstance(x, Emulated):
        _waited("copy to the CPU")
    else:
        _count_sent(x, non_blocking)
    return _Moved.apply(x)


def _is_there(device: Any) -> bool:
    return torch.device(device).type == "cuda"


def _to(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    copy, other = kwargs.pop("copy", False), args[0] if args else kwargs.get("other")
    if isinstance(other, Tensor):
        args = (other.device, other.dtype, *args[1:])
        kwargs.pop("other", None)
    device, dtype, non_blocking, _ = torch._C._nn._parse_to(*args, **kwargs)
    if device is not None and _is_there(device) != isinstance(x, Emulated):
        x = _moved(x, device, non_blocking)
    if dtype is not None and dtype != x.dtype:
        return x.type(dtype)
    return x.clone() if copy else x


def _pinned(x: Tensor, *_: Any) -> Tensor:
    if isinstance(x, Emulated):
        raise RuntimeError("cannot pin: only dense CPU tensors can be pinned")
    copy = x.clone()
    copy.pinned = True
    return copy


def _cpu(x: Tensor, *_: Any, **__: Any) -> Tensor:
    return _moved(x, CPU) if isinstance(x, Emulated) else x


def _new_tensor(x: Tensor, data: Any, **kwargs: Any) -> Tensor:
    device = kwargs.pop("device", x.device)
    made = torch.tensor(data, **{"dtype": x.dtype, **kwargs})
    return _moved(made, device) if _is_there(device) else made


_METHODS: dict[str, Callable[..., Any]] = {
    "to": _to,
    "cpu": _cpu,
    "cuda": lambda x, *_, **__: _to(x, CUDA),
    "pin_memory": _pinned,
    "is_pinned": lambda x, *_: getattr(x, "pinned", False),
    "new_tensor": _new_tensor,
}


class _FromPython(TorchFunctionMode):
    """What Python code asks of devices."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs, name = dict(kwargs or {}), getattr(func, "__name__", "")
        if name in _METHODS and args and isinstance(args[0], Tensor):
            return _METHODS[name](*args, **kwargs)
        device, pinned = kwargs.get("device"), kwargs.pop("pin_memory", False)
        _check_generator(kwargs.get("generator"), device, args)
        if device is None or name == "_parse_to":
            found = func(*args, **kwargs)
        else:
            found = self._made(func, name, args, kwargs)
        if pinned:
            found.pinned = True
        return found

    def _made(self, func: Any, name: str, args: tuple, kwargs: dict[str, Any]) -> Any:
        """A new tensor, on the device that is named."""
        there = _is_there(kwargs.pop("device"))
        found = func(*args, **kwargs)
        if there and name in ("tensor", "as_tensor") and not isinstance(found, Emulated):
            return _moved(found, CUDA)
        if there and name not in _VIEWS:
            _device.launches[name] += 1
        return tree_map(_emulated if there else _held, found)


def _check_generator(generator: Any, device: Any, args: tuple) -> None:
    """Raise where a generator draws for a tensor of another device."""
    if generator is None:
        return
    there = _is_there(device) if device is not None else any(isinstance(x, Emulated) for x in args)
    if there != isinstance(generator, _Generator):
        raise RuntimeError("Expected a generator of the device that the tensor is on.")


class _Generator(torch.Generator):
    """One of the emulated device."""


class _AnyGenerator(torch.Generator):
    """`torch.Generator` while the emulation is on."""

    def __new__(cls, device: Any = "cpu") -> torch.Generator:
        return _Generator() if _is_there(device) else _REAL_GENERATOR()


_REAL_GENERATOR = torch.Generator


class _Pool(ThreadPoolExecutor):
    """Threads that the emulation is on in: torch's modes belong to one thread."""

    def submit(self, work: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future:
        def inside() -> Any:
            with _FromPython():
                return work(*args, **kwargs)

        return super().submit(inside)


_group = torch.utils._foreach_utils._group_tensors_by_device_and_dtype


def _grouped(tensors: Any, *_: Any, **__: Any) -> Any:
    """torch groups by the device that C++ sees."""
    found = _group(tensors, True)
    there = any(isinstance(t, Emulated) for t in tensors[0])
    return {(CUDA if there else device, dtype): x for (device, dtype), x in found.items()}


_apply_backward = torch.autograd.function.BackwardCFunction.apply


def _backward(node: Any, *grads: Any) -> Any:
    """The backward of a Python function asks of devices too, where torch has turned modes off."""
    with _FromPython():
        return _apply_backward(node, *grads)


def _patches() -> Iterator[Any]:
    """What torch.cuda is asked for."""
    cuda, patch = torch.cuda, mock.patch.object
    yield patch(cuda, "mem_get_info", lambda device=None: (140 << 30, 141 << 30))
    yield patch(cuda, "get_rng_state", lambda device=None: torch.get_rng_state())
    yield patch(cuda, "set_rng_state", lambda state, device=None: None)
    yield patch(cuda, "current_device", lambda: 0)
    yield patch(cuda, "manual_seed", lambda seed: None)
    yield patch(cuda, "device", lambda device: contextlib.nullcontext())
    yield patch(cuda, "synchronize", lambda device=None: _waited("synchronize"))
    properties = SimpleNamespace(total_memory=141 << 30, name="emulated", major=9, minor=0)
    yield patch(cuda, "get_device_properties", lambda device=None: properties)
    yield patch(cuda, "get_device_capability", lambda device=None: (9, 0))
    # C++ takes what is emulated for the CPU's: so does its autocast.
    autocast = torch.autocast
    yield patch(torch, "autocast", lambda kind, *a, **k: autocast("cpu", *a, **k))
    yield mock.patch("fusemix_core.objectives.half_choice._fused", lambda device: None)
    yield patch(cuda, "Stream", streams.Stream)
    yield patch(cuda, "stream", streams.on)
    yield patch(cuda, "current_stream", streams.current)
    forked = torch.random.fork_rng
    yield patch(torch.random, "fork_rng", lambda devices=(), **how: forked(devices=[], **how))
    yield patch(torch, "Generator", _AnyGenerator)
    yield patch(torch.autograd.function.BackwardCFunction, "apply", _backward)
    name = "_group_tensors_by_device_and_dtype"
    yield patch(torch.optim.Optimizer, name, staticmethod(_grouped))
    yield patch(torch.nn.utils.clip_grad, name, _grouped)
    yield patch(cuda, "Event", streams.Done)
    for module in ("engine.feed", "latents.encoding", "latents.pipeline"):
        yield mock.patch(f"fusemix_core.{module}.ThreadPoolExecutor", _Pool)


@contextlib.contextmanager
def emulated() -> Iterator[Device]:
    """A CUDA device `cuda:0` inside, and what is asked of it."""
    _device.clear()
    swapping = torch.__future__.get_swap_module_params_on_conversion()
    torch.__future__.set_swap_module_params_on_conversion(True)
    try:
        with contextlib.ExitStack() as stack:
            for patch in _patches():
                stack.enter_context(patch)
            stack.enter_context(_FromPython())
            yield _device
    finally:
        torch.__future__.set_swap_module_params_on_conversion(swapping)
