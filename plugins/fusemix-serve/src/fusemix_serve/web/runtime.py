"""The packages of npm that run a text encoder in a browser: of fixed versions and content."""

from __future__ import annotations

import base64
import hashlib
import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fusemix_core.errors import ConfigError
from fusemix_core.home import home


@dataclass(frozen=True)
class Package:
    """A package of npm.

    Attributes:
        name, version: in npm.
        licence: SPDX.
        archive: the name of the file that `npm pack` writes.
        sha512: of that file, base64, as npm's `integrity` has it.
        files: path in the package → name in the export.
    """

    name: str
    version: str
    licence: str
    archive: str
    sha512: str
    files: Mapping[str, str]


PACKAGES = (
    Package(
        "onnxruntime-web",
        "1.30.0",
        "MIT",
        "onnxruntime-web-1.30.0.tgz",
        "q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ==",
        {
            "dist/ort.wasm.min.mjs": "ort.js",
            "dist/ort-wasm-simd-threaded.mjs": "ort-wasm.js",
            "dist/ort-wasm-simd-threaded.wasm": "ort-wasm.wasm",
        },
    ),
    Package(
        "@huggingface/tokenizers",
        "0.2.0",
        "Apache-2.0",
        "huggingface-tokenizers-0.2.0.tgz",
        "LidMHe1FpcSYH4vcSjXooda34pC0M8m1gmDOv7SQi6Iv+ib1zX7J3sHBCC9/3FPCkn2k1b55FneVqMRxrr99pg==",
        {"dist/tokenizers.min.mjs": "tokenizers.js"},
    ),
)


def archives(given: str = "") -> list[Path]:
    """The archives of `PACKAGES`, checked.

    Args:
        given: their folder. Empty: `<home>/web`, to which npm downloads those that are missing.

    Raises:
        ConfigError: one is missing and can't be downloaded, or isn't the one expected.
    """
    found = []
    for package in PACKAGES:
        path = Path(given) / package.archive if given else home() / "web" / package.archive
        if not path.is_file():
            if given:
                raise ConfigError(f"{path} is missing.", _advice())
            _download(package, path)
        _check(package, path)
        found.append(path)
    return found


def unpack(archives: Sequence[Path], folder: Path) -> None:
    """Write the files that a page needs to an empty folder, with a note of their licences."""
    notes = []
    for package, path in zip(PACKAGES, archives, strict=True):
        with tarfile.open(path) as archive:
            for inside, name in package.files.items():
                content = archive.extractfile(f"package/{inside}")
                assert content is not None  # the archive is the one that has it
                (folder / name).write_bytes(content.read())
        names = ", ".join(package.files.values())
        page = f"https://www.npmjs.com/package/{package.name}"
        notes.append(f"{names}: {package.name} {package.version}, {package.licence}, {page}")
    (folder / "LICENCES.txt").write_text("\n".join(notes) + "\n", encoding="utf-8")


def _download(package: Package, path: Path) -> None:
    """Let npm, with the user's settings, download an archive."""
    npm = shutil.which("npm")
    if npm is None:
        raise ConfigError(
            f"Words are encoded in the browser by {package.name}, which npm downloads; there is no "
            "npm here.",
            _advice(),
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        words = [npm, "pack", f"{package.name}@{package.version}", "--pack-destination", folder]
        done = subprocess.run(words, capture_output=True, text=True, check=False)  # noqa: S603
        made = Path(folder) / package.archive
        if done.returncode or not made.is_file():
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise ConfigError(
                f"npm can't download {package.name} {package.version}: {last}", _advice()
            )
        os.replace(made, path)


def _check(package: Package, path: Path) -> None:
    found = base64.b64encode(hashlib.sha512(path.read_bytes()).digest()).decode()
    if found != package.sha512:
        raise ConfigError(
            f"{path} is not {package.name} {package.version} as npm publishes it.",
            "Delete it, so that it is downloaded again.",
        )


def _advice() -> str:
    names = " ".join(f"{one.name}@{one.version}" for one in PACKAGES)
    return (
        f"On a machine with npm: npm pack {names}\n"
        "Then name the folder of the two files: --to 'web runtime=FOLDER'\n"
        "Or leave words out, and search by items and columns: --to 'web words=false'"
    )
