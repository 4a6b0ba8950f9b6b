"""Plugins that importlib finds on a path, as pip would have put them there."""

import os
import subprocess

import started


def add_metadata(folder, name, module, version="0.1.0"):
    """`NAME.dist-info` with the entry point of a plugin, as an installed distribution has it."""
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (info / "entry_points.txt").write_text(f"[fusemix]\n{name} = {module}\n")


def python(*args, path=(), cwd=None, check=True, interpreter=None, **env):
    """A finished process of Python, with more on its path: an interpreter's, or one of `started`,
    which has torch imported."""
    path = os.pathsep.join(map(str, path))
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": path, **env}
    if interpreter is None:
        done = started.run(*args, cwd=cwd, env=env)
    else:
        command = [str(interpreter), *map(str, args)]
        done = subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=env)
    assert not check or done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return done


def fusemix(*args, **options):
    """`fusemix ARGS` in a process of its own."""
    return python("-c", "from fusemix_core.cli import main; main()", *args, **options)
