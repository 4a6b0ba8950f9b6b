"""OpenVINO on the CPU. Imports no torch, so that a process may do without."""

from __future__ import annotations

import importlib.util
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import openvino


NEEDED = ("onnx", "onnxscript", "openvino")
"""The packages that export networks and run them. `EXTRA` brings them."""
EXTRA = "fusemix[fast]"


def request(model: Path | Any, threads: int) -> openvino.InferRequest:
    """A network, ready to run in float32 on so many threads.

    Args:
        model: The path of an ONNX file, or a model of `core().read_model`.
        threads: At most so many.
    """
    # Left alone, it takes bfloat16 where the machine has it, and threads bound to cores that
    # decoding needs too.
    how = {
        "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": threads,
        "PERFORMANCE_HINT": "LATENCY",
        "ENABLE_CPU_PINNING": False,
        # Left alone, it keeps what it prepared for 5,000 shapes, and texts have so many: the
        # memory of a server grew by 1 to 2 MB per batch, and no batch was faster.
        "CPU_RUNTIME_CACHE_CAPACITY": 16,
    }
    return core().compile_model(model, "CPU", how).create_infer_request()


@cache
def core() -> openvino.Core:
    """One for the process. Each sets a stack for signals and puts the former one back as it goes;
    of two, the second leaves that of the first, which is gone, and the next signal is the end."""
    import openvino

    return openvino.Core()


def absent(*names: str) -> str | None:
    """The first of some packages that is not installed. Imports nothing."""
    return next((name for name in names if importlib.util.find_spec(name) is None), None)
