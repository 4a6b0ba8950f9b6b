"""The exporter `web`."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fusemix_core.errors import ConfigError, MissingDependencyError
from fusemix_core.exports.base import Exporter, ExportSource
from fusemix_core.latents import exported
from fusemix_core.search import Collection
from fusemix_core.search.state import LEVELS
from fusemix_core.versions import version
from fusemix_serve.app import STATIC
from fusemix_serve.gallery import SAME, Gallery
from fusemix_serve.web import runtime
from fusemix_serve.web.collecting import PART, write_items, write_parts, write_vectors
from fusemix_serve.web.scores import added, slope
from fusemix_serve.web.words import write_words

FORMAT = "fusemix-web-1"
_OWN = Path(__file__).parent / "js"
_LARGEST = 1 << 30
"""Bytes of vectors that a browser can take."""
_POLICY = (
    "default-src 'self'; script-src 'self' 'wasm-unsafe-eval'; img-src 'self' blob:; "
    "media-src 'self' blob:; base-uri 'none'; form-action 'self'; object-src 'none'"
)
_HEAD = '<meta charset="utf-8">'


class WebExporter(Exporter):
    """A folder of static files: the search page, an index, and the text encoder for the browser.

    Args:
        dtype: of the vectors, `int16` or `int8`. int16 ranks as the index does.
        words: whether the page searches by words: it then contains the text encoder.
        weights: of the text encoder, `float16` or `float32`.
        media: whether images and sounds are copied as they are. Without, images are shown at 256
            pixels a side, and sounds can't be played.
        runtime: a folder with the archives of `npm pack`. Empty: npm downloads them once.
        name: what the page calls the collection.
    """

    uses = ("data",)

    def __init__(
        self,
        *,
        dtype: str = "int16",
        words: bool = True,
        weights: str = "float16",
        media: bool = False,
        runtime: str = "",
        name: str = "",
    ) -> None:
        if dtype not in ("int16", "int8") or weights not in ("float16", "float32"):
            raise ConfigError(
                f"The export 'web' can't have dtype={dtype!r} and weights={weights!r}.",
                "dtype is int16 or int8; weights is float16 or float32.",
            )
        self.dtype, self.words, self.weights = dtype, words, weights
        self.media, self.runtime, self.name = media, runtime, name

    def check(self, source: ExportSource) -> None:
        if self.words and self._texts(source):
            if package := exported.missing():
                raise MissingDependencyError.of("fusemix export", package, exported.EXTRA)
            runtime.archives(self.runtime)

    def write(self, source: ExportSource, folder: Path) -> Sequence[str]:
        if source.collection is not None:
            return self._write(source.collection, source, folder)
        assert source.data is not None  # which `check_source` saw to
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".index.") as inside:
            made = Collection.create(
                Path(inside) / "index", source.model, source.data, reporter=source.reporter
            )
            return self._write(made, source, folder)

    def _texts(self, source: ExportSource) -> list[str]:
        """The modalities that can be asked for by words."""
        asks = source.model.modalities
        if source.collection is not None:
            asks = source.collection.query_modalities
        return [m for m in asks if source.model.encoders[m].takes == "text"]

    def _write(self, collection: Collection, source: ExportSource, folder: Path) -> list[str]:
        dim, asks = collection.model.dim, list(collection.query_modalities)
        size = len(collection) * dim * (2 if self.dtype == "int16" else 1)
        if size > _LARGEST:
            raise ConfigError(
                f"The vectors of {len(collection):,} items have {size >> 20:,} MiB in "
                f"{self.dtype}: too many for a browser, which can take {_LARGEST >> 20:,}.",
                "Serve the index instead: fusemix serve INDEX"
                + (". Or halve them: --to 'web dtype=int8'" if self.dtype == "int16" else ""),
            )
        scorer = collection.model.scorer
        slopes = {
            f"{q}>{t}": slope(scorer, q, t, asks, dim) for q in asks for t in collection.modalities
        }
        gallery = Gallery(self.name or collection.folder.name, collection)
        data = folder / "data"
        data.mkdir()
        words, note = self._words(source, collection, slopes, data)
        source.reporter.stage("Writing items")
        counts = write_items(gallery, data, self.media, source.reporter)
        sizes = write_vectors(gallery, data, self.dtype, slopes)
        sizes["map"] = write_parts(data / "map", gallery.now.points.astype("<f4").tobytes())
        described = gallery.described()
        info = described | {
            "format": FORMAT,
            "fusemix": version(),
            "query": [one for one in described["query"] if one["name"] in words],
            "note": note,
            "dim": dim,
            "dtype": self.dtype,
            "asks": asks,
            "items": counts,
            "columns_added": {q: added(scorer, q, asks, dim) for q in asks},
            "slopes": slopes,
            "scores": dict(collection.state.scores),
            "levels": LEVELS.tolist(),
            "same": SAME,
            "part": PART,
            "sizes": sizes | {f"{m}/model.onnx": one.pop("bytes") for m, one in words.items()},
            "words": words,
        }
        text = json.dumps(info, ensure_ascii=False, separators=(",", ":"))
        (data / "info.json").write_text(text, encoding="utf-8")
        self._page(folder, bool(words))
        return self._lines(folder, bool(words))

    def _words(
        self,
        source: ExportSource,
        collection: Collection,
        slopes: dict[str, float],
        data: Path,
    ) -> tuple[dict[str, dict[str, Any]], str]:
        """(modality → what the page has to know of its encoder, what it says if there is none)."""
        found: dict[str, dict[str, Any]] = {}
        texts = self._texts(source) if self.words else []
        for modality in texts:
            source.reporter.stage(f"Exporting the encoder of {modality}")
            folder = data / modality
            folder.mkdir()
            own = {t: slopes[f"{modality}>{t}"] for t in collection.modalities}
            asks = collection.query_modalities
            half = self.weights == "float16"
            try:
                told = write_words(collection.model, modality, asks, own, folder, half)
            except ConfigError as error:
                shutil.rmtree(folder)
                source.reporter.note(f"The page can't search by {modality}: {error.message}")
                continue
            path = folder / "model.onnx"
            found[modality] = told | {"bytes": write_parts(path, path.read_bytes())}
            path.unlink()
        note = "" if found else "Search by items: choose “More like this” on any of them."
        return found, note

    def _page(self, folder: Path, words: bool) -> None:
        """The page of `fusemix serve`, with another `api.js`."""
        shutil.copytree(STATIC, folder / "static")
        page = folder / "static" / "index.html"
        html = page.read_text(encoding="utf-8")
        policy = f'{_HEAD}\n<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        (folder / "index.html").write_text(html.replace(_HEAD, policy, 1), encoding="utf-8")
        page.unlink()
        shutil.copytree(_OWN, folder / "static" / "js", dirs_exist_ok=True)
        if words:
            own = folder / "static" / "runtime"
            own.mkdir()
            runtime.unpack(runtime.archives(self.runtime), own)

    def _lines(self, folder: Path, words: bool) -> list[str]:
        files = [path for path in folder.rglob("*") if path.is_file()]
        total = sum(path.stat().st_size for path in files)
        by = "words, items and columns" if words else "items and columns, not by words"
        return [
            f"{len(files):,} files, {total / 1e6:,.1f} MB: a page that searches by {by}.",
            "Copy {out} to any host of static files, or try it here:",
            "python -m http.server --directory {out} --bind 127.0.0.1 8000",
        ]
