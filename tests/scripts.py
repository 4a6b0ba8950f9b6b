"""A script as `python SCRIPT` runs it, in a process that has imported much already."""

from __future__ import annotations

import gc
import os
import runpy
import sys
from pathlib import Path

import pytest


def run_script(
    script: Path, arguments: tuple[object, ...], home: Path, out: Path, short: bool = False
) -> None:
    """In the folder of `out`, which gets all that is printed; `short`: see `shortened`."""
    gc.freeze()  # what was imported before the fork need not be looked at again
    os.chdir(out.parent)
    os.environ |= {"FUSEMIX_HOME": str(home), "HF_HUB_OFFLINE": "1"}
    printed = os.open(out, os.O_WRONLY | os.O_CREAT)
    for stream in (1, 2):
        os.dup2(printed, stream)
    sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115
    sys.argv = [str(script), *map(str, arguments)]
    sys.path[0] = str(script.parent)
    if short:
        from shortened import shorten

        shorten(pytest.MonkeyPatch())
    try:
        runpy.run_path(str(script), run_name="__main__")
    finally:
        sys.stdout.flush()
