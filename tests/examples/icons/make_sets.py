"""Makes iconify-json-small.tgz, a package @iconify/json in small, from the real one.

    npm pack @iconify/json@2.2.535 && tar xzf iconify-json-2.2.535.tgz
    python tests/examples/icons/make_sets.py package

Icons that both Lucide and Tabler draw under one name, and Material Symbols if it draws them too;
more of the test split than chance would give. One hidden icon of each of these sets, and three sets
that are made up: a broken SVG, a licence that is left out, and logos.
"""

import gzip
import hashlib
import io
import json
import sys
import tarfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3] / "examples"))
from icon_sets import Icon  # noqa: E402

SETS = ("lucide", "tabler", "material-symbols")
QUOTA = {"train": 90, "validation": 12, "test": 24}
CIRCLE = {"body": '<circle cx="12" cy="12" r="9"/>'}
MADE_UP = {
    "broken": ("MIT", "UI 24px", {"torn-page": {"body": '<path d="M4 4'}}),
    "closed": ("CC-BY-NC-4.0", "UI 24px", dict.fromkeys(["moon", "sun", "ball"], CIRCLE)),
    "firms": ("MIT", "Logos", dict.fromkeys(["some-firm", "other-firm"], CIRCLE)),
}


def main(package: Path) -> None:
    collections = json.loads((package / "collections.json").read_text())
    sets = {name: json.loads((package / "json" / f"{name}.json").read_text()) for name in SETS}
    shown = [{n for n, i in data["icons"].items() if "hidden" not in i} for data in sets.values()]
    chosen = choose(*shown)
    members = {"package.json": {"name": "@iconify/json", "version": "2.2.535", "license": "MIT"}}
    listed = members["collections.json"] = {name: collections[name] for name in SETS}
    for name, data in sets.items():
        hidden = next(icon for icon, drawing in data["icons"].items() if "hidden" in drawing)
        kept = [icon for icon in sorted(chosen) if icon in data["icons"]]
        icons = {icon: data["icons"][icon] for icon in [*kept, hidden]}
        listing = data.get("categories", {}).items()
        categories = {c: found for c, m in listing if (found := [i for i in m if i in icons])}
        small = {k: data[k] for k in ("prefix", "suffixes", "width", "height") if k in data}
        members[f"json/{name}.json"] = {**small, "icons": icons, "categories": categories}
        listed[name] = {**listed[name], "total": len(icons) - 1}
    for name, (licence, category, icons) in MADE_UP.items():
        members[f"json/{name}.json"] = {"prefix": name, "width": 24, "height": 24, "icons": icons}
        listed[name] = {
            "total": len(icons),
            "author": {"name": "Nobody"},
            "license": {"title": licence, "spdx": licence},
            "category": category,
        }
    Path(__file__).with_name("iconify-json-small.tgz").write_bytes(packed(members))


def choose(lucide: set[str], tabler: set[str], material: set[str]) -> list[str]:
    """Names of the icons: for each split as many as QUOTA says, those that all three draw first."""

    def order(name: str) -> tuple[bool, bytes]:
        return name not in material, hashlib.sha256(name.encode()).digest()

    names = sorted((n for n in lucide & tabler if len(n) > 3), key=order)
    splits = {n: Icon("", n, n.replace("-", " "), "", "", "", "", "", "").split for n in names}
    return [n for split, m in QUOTA.items() for n in [x for x in names if splits[x] == split][:m]]


def packed(members: dict[str, object]) -> bytes:
    """The same bytes for the same members."""
    out = io.BytesIO()
    with (
        gzip.GzipFile(fileobj=out, mode="wb", mtime=0) as zipped,
        tarfile.open(fileobj=zipped, mode="w") as tar,
    ):
        for name, value in members.items():
            content = json.dumps(value, ensure_ascii=False).encode()
            entry = tarfile.TarInfo(f"package/{name}")
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return out.getvalue()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
