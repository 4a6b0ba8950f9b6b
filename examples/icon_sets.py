"""Reading the npm package @iconify/json: its icons, the words in their names, their licences.

Used by `icons.py`; not an example by itself. Nothing is unpacked: the tarball is read from its
beginning to its end, and members with unexpected names are passed over.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import tarfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PERMISSIVE = frozenset(
    {
        "MIT",
        "MIT-0",
        "Apache-2.0",
        "ISC",
        "BSD-2-Clause",
        "BSD-3-Clause",
        "0BSD",
        "CC0-1.0",
        "Unlicense",
        "CC-BY-3.0",
        "CC-BY-4.0",
    }
)
"""SPDX names of the licences that are kept. CC BY asks you to name the author."""

NAME = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*")
"""Names of sets and icons. They become names of files, so nothing else is accepted."""

LOGO_SETS = frozenset({"Logos", "Programming"})
"""Categories of sets that draw products and firms."""
LOGO = re.compile(r"(?:logo|brand)-|.*-(?:logo|wordmark)$")
SKIN = re.compile(
    r"-(?:(?:(?:medium-)?(?:light|dark)|medium)-skin-tone-?)+$|-medium-(?:light|dark)$"
)
ANIMATED = re.compile(r"<(?:animate|set)\b")
STYLE = re.compile(r"outlined?|rounded|sharp|fill|filled|solid|duo|duotone|twotone|linear|0\d")
"""Last words of a name that say how an icon is drawn, in whichever set."""
SOMETIMES = re.compile(
    r"alt|bold|broken|color|dark|flat|light|line|medium|monochrome|negative|plain|regular|remix|round|"
    r"thin|tone|\d+(?:px)?|\d+x\d+"
)
"""These too, if they end many names of a set. (`heart-broken` is not a style.)"""
MANY = 0.05


@dataclass(frozen=True)
class Icon:
    """One icon: `words` are what it shows, `style` how it is drawn; `svg` is a whole document."""

    set: str
    name: str
    words: str
    style: str
    category: str
    licence: str
    author: str
    url: str
    svg: str

    @property
    def id(self) -> str:
        return f"{self.set}/{self.name}"

    @property
    def concept(self) -> str:
        """The same for "arrow left", "left arrow" and "arrow left 2"."""
        words = set(self.words.split())
        return " ".join(sorted({w for w in words if not w.isdigit()} or words))

    @property
    def split(self) -> str:
        """By concept only: no set draws a test concept for training. Test and validation get
        a tenth of the concepts each."""
        drawn = int(hashlib.sha256(self.concept.encode()).hexdigest(), 16) % 10
        return {0: "test", 1: "validation"}.get(drawn, "train")


class Package:
    """The tarball, or the folder it was unpacked to.

    `icons()` fills `left_out`, reason → how many icons, `total`, all icons that it met, and
    `unlisted`, sets that `collections.json` does not list, which therefore have no licence.
    `expected` is how many the package promises in the sets that are used.

    Args:
        source: `iconify-json-VERSION.tgz`, or a folder with `collections.json` and `json/`.
        logos: Keep logos, which are trade marks, as far as sets and names tell.
    """

    def __init__(self, source: Path, logos: bool = False) -> None:
        self.source = source
        self._no_logos = "" if logos else "logos (--logos keeps them)"
        names, heads = ("collections.json", "package.json"), dict[str, bytes]()
        for name, data in self._members(names.__contains__):
            heads[name] = data
            if len(heads) == len(names):
                break
        for name in names:
            if name not in heads:
                raise self._unusable(f"it has no {name}")
        version = self._parsed(heads["package.json"], "package.json").get("version")
        self.version = version if re.fullmatch(r"[\w.-]+", str(version)) else "unknown"
        self.sets = self._parsed(heads["collections.json"], "collections.json")
        if not all(isinstance(info, Mapping) for info in self.sets.values()):
            raise self._unusable("collections.json doesn't describe sets")
        self._refused = {name: self._why_not(name, info) for name, info in self.sets.items()}
        used = [name for name, reason in self._refused.items() if not reason]
        self.expected = sum(int(self.sets[name].get("total") or 0) for name in used)
        self.left_out: Counter[str] = Counter()
        self.unlisted: set[str] = set()
        self.total = 0

    def icons(self, read: Callable[[], None] = lambda: None) -> Iterator[Icon]:
        """The icons that may be used, in the package's order. `read` is called after each set."""
        self.left_out, self.total, missing = Counter(), 0, set(self.sets)
        for member, content in self._members(self._is_set):
            name = Path(member).stem
            data = self._parsed(content, member)
            icons = data.get("icons")
            if not isinstance(icons, Mapping):
                raise self._unusable(f"{member} has no icons")
            missing.discard(name)
            self.total += len(icons)
            if reason := self._refused[name]:
                self.left_out[reason] += len(icons)
            else:
                yield from self._of_set(name, data)
            read()
        if missing:
            raise self._unusable(f"it lacks the sets {', '.join(sorted(missing)[:5])}")

    def _of_set(self, name: str, data: Mapping[str, Any]) -> Iterator[Icon]:
        info, names = self.sets[name], Names(data)
        category = {i: c for c, listed in (data.get("categories") or {}).items() for i in listed}
        author = info.get("author") or {}
        for icon, drawing in data["icons"].items():
            words, style = names.split(icon)
            reason = _why_not_icon(icon, words, drawing)
            if not reason and LOGO.match(icon):
                reason = self._no_logos
            if reason:
                self.left_out[reason] += 1
                continue
            yield Icon(
                set=name,
                name=icon,
                words=words,
                style=style,
                category=category.get(icon, ""),
                licence=info["license"]["spdx"],
                author=author.get("name", ""),
                url=author.get("url", ""),
                svg=_document(data, drawing),
            )

    def _why_not(self, name: str, info: Mapping[str, Any]) -> str:
        licence = (info.get("license") or {}).get("spdx")
        if licence not in PERMISSIVE:
            return f"licence {licence or 'unknown'}"
        logos = info.get("category") in LOGO_SETS or name.endswith("-brands")
        return self._no_logos if logos else ""

    def _is_set(self, member: str) -> bool:
        folder, _, file = member.partition("/")
        name = file.removesuffix(".json")
        if folder != "json" or name == file or not NAME.fullmatch(name):
            return False
        if name not in self.sets:
            self.unlisted.add(name)
        return name in self.sets

    def _members(self, wanted: Callable[[str], bool]) -> Iterator[tuple[str, bytes]]:
        """Name below the package's folder and content of each file that is `wanted`."""
        try:
            if self.source.is_dir():
                inside = self.source / "package"
                folder = inside if inside.is_dir() else self.source
                for path in sorted([*folder.glob("*.json"), *folder.glob("json/*.json")]):
                    if wanted(name := path.relative_to(folder).as_posix()):
                        yield name, path.read_bytes()
                return
            with tarfile.open(self.source, "r|*") as tar:
                for member in tar:
                    name = member.name.removeprefix("package/")
                    if not member.isfile() or member.name == name or not wanted(name):
                        continue
                    if (file := tar.extractfile(member)) is not None:
                        yield name, file.read()
        except FileNotFoundError:
            raise SystemExit(
                f"There is no {self.source}. Get the icons with\n    npm pack @iconify/json"
            ) from None
        except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise self._unusable(f"the archive is damaged ({error})") from error

    def _parsed(self, content: bytes, member: str) -> dict[str, Any]:
        try:
            found = json.loads(content)
        except ValueError as error:
            raise self._unusable(f"{member} is not JSON ({error})") from error
        if not isinstance(found, dict):
            raise self._unusable(f"{member} is not a JSON object")
        return found

    def _unusable(self, why: str) -> SystemExit:
        return SystemExit(
            f"{self.source} can't be used: {why}.\n"
            "It should be the npm package @iconify/json. Get it again with\n"
            "    npm pack @iconify/json"
        )


class Names:
    """Tells words from style in the names of one set."""

    def __init__(self, data: Mapping[str, Any]) -> None:
        self._prefixes, self._suffixes = (
            sorted(map(str, filter(None, data.get(key) or {})), key=len, reverse=True)
            for key in ("prefixes", "suffixes")
        )
        icons = data["icons"]
        last = Counter(name.rpartition("-")[2] for name in icons)
        many = max(2, MANY * len(icons))
        self._often = {word for word, count in last.items() if count >= many}

    def split(self, name: str) -> tuple[str, str]:
        """`arrow-left-bold` → ("arrow left", "bold")."""
        style: list[str] = []
        for prefix in self._prefixes:
            if name.startswith(f"{prefix}-"):
                name = name.removeprefix(f"{prefix}-")
                style.append(prefix)
                break
        for suffix in self._suffixes:
            if name.endswith(f"-{suffix}"):
                name = name.removesuffix(f"-{suffix}")
                style.append(suffix)
                break
        if tone := SKIN.search(name):
            name = name[: tone.start()]
            style.append(tone[0].strip("-"))
        parts = name.split("-")
        while len(parts) > 1 and self._is_style(parts[-1]):
            style.append(parts.pop())
        words = [re.sub(r"(?<=[a-z]{2})(?=\d)", " ", part) for part in parts]
        return " ".join(words), " ".join(style)

    def _is_style(self, word: str) -> bool:
        return bool(STYLE.fullmatch(word) or (word in self._often and SOMETIMES.fullmatch(word)))


def _why_not_icon(name: str, words: str, drawing: Any) -> str:
    if not NAME.fullmatch(name):
        return "unusual name"
    if not re.search("[a-z]{2}", words):
        return "no word in the name"
    if not isinstance(drawing, Mapping) or not isinstance(drawing.get("body"), str):
        return "no drawing"
    if drawing.get("hidden"):
        return "hidden (the set has withdrawn it)"
    return (
        "animated (an image would show how it begins)" if ANIMATED.search(drawing["body"]) else ""
    )


def _document(data: Mapping[str, Any], icon: Mapping[str, Any]) -> str:
    """The icon as an SVG document. The package keeps only what is inside."""
    default = {"left": 0, "top": 0, "width": 16, "height": 16}
    left, top, width, height = (icon.get(k, data.get(k, v)) for k, v in default.items())
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'width="{width}" height="{height}" viewBox="{left} {top} {width} {height}">'
        f"{icon['body']}</svg>"
    )
