"""`python guided.py TARGET FOLDER [libFuzzer's options]`: the target by atheris, which looks for
inputs that reach new lines of fusemix and of the readers of the standard library.

`FOLDER/corpus` contains the inputs that did; one that fails is left in `FOLDER`. Needs the extra
`fuzz`.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["fusemix_core", "tarfile", "csv", "tomllib", "json"]):
    from fuzz.target import TOKENS
    from fuzz.targets import TARGETS

    from fusemix_core.errors import FusemixError


def main() -> None:
    target = next(t for t in TARGETS if t.name == sys.argv[1])
    folder = Path(sys.argv[2])
    corpus, place = folder / "corpus", folder / "place"
    corpus.mkdir(parents=True, exist_ok=True)
    place.mkdir(exist_ok=True)
    for number, seed in enumerate(target.seeds()):
        (corpus / f"seed-{number}").write_bytes(seed)
    words = {word for word in (*target.tokens, *TOKENS) if len(word) < 60}
    quoted = ['"' + "".join(f"\\x{byte:02x}" for byte in word) + '"' for word in sorted(words)]
    (folder / "words").write_text("\n".join(quoted) + "\n")

    def one(data: bytes) -> None:
        try:
            target.read(data, place)
        except FusemixError as error:
            assert error.exit_code == 2, error

    options = [f"-dict={folder / 'words'}", f"-artifact_prefix={folder}{os.sep}", "-timeout=60",
               "-rss_limit_mb=4096", "-seed=1", *sys.argv[3:], str(corpus)]  # fmt: skip
    atheris.Setup([sys.argv[0], *options], one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
