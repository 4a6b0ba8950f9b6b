"""A server with the JSON API of fusemix-serve whose answers a test chooses: slow, failing, huge.

Run by hand, `python fake_server.py [PORT]` shows the page with the bundled sample.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
import struct
import sys
import threading
import time
import wave
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import fusemix_starter
import numpy as np

STATIC = Path(str(files("fusemix_serve") / "static"))
SAMPLE = Path(fusemix_starter.__file__).parent / "sample"
KINDS = {
    ".html": "text/html",
    ".js": "text/javascript",
    ".css": "text/css",
    ".svg": "image/svg+xml",
}
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' blob:; media-src 'self' blob:; "
    "base-uri 'none'; form-action 'self'",
    "X-Content-Type-Options": "nosniff",
}
MARKUP = '<img src=x onerror="window.attacked = true"><script>window.attacked = true</script>'


def key_of(name: str) -> str:
    return hashlib.blake2b(name.encode(), digest_size=16).hexdigest()


def tone() -> bytes:
    """A second of 440 Hz as a WAV file."""
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setparams((1, 2, 16000, 0, "NONE", ""))
        wave_form = 9000 * np.sin(np.arange(16000) * 2 * np.pi * 440 / 16000)
        out.writeframes(wave_form.astype("<i2").tobytes())
    return file.getvalue()


def sample_records(count: int = 400) -> list[dict]:
    """Images of the bundled sample with their captions, some captions and some sounds as items."""
    with open(SAMPLE / "pairs.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    step = max(1, len(rows) // count)
    records = []
    for i, row in enumerate(rows[::step][:count]):
        columns = {name: row[name] for name in ("book", "split", "module", "licence")}
        columns["year"] = 2000 + i % 24
        record = {
            "modality": "image",
            "item": row["image"],
            "text": row["text"],
            "columns": columns,
        }
        key = key_of(row["image"])
        records.append({**record, "key": key, "thumb": f"/thumb/{key}", "media": f"/media/{key}"})
        if i % 8 == 0:
            text = row["caption"] or row["text"]
            key = key_of(f"text {row['image']}")
            said = {"key": key, "modality": "text", "item": text[:40], "text": text}
            records.append({**said, "columns": columns, "thumb": None, "media": None})
        if i % 40 == 0:
            key = key_of(f"audio {i}")
            sound = {"key": key, "modality": "audio", "item": f"sounds/{i}.wav", "text": None}
            records.append({**sound, "columns": columns, "thumb": None, "media": f"/media/{key}"})
    for at, record in enumerate(records):
        record["at"] = at
    return records


class FakeServer(ThreadingHTTPServer):
    """Answers as fusemix-serve does; `answers[path]` replaces one, `delay` slows the searches."""

    daemon_threads = True

    def __init__(self, records: list[dict] | None = None, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.records = sample_records() if records is None else records
        self.by_key = {record["key"]: record for record in self.records}
        self.uploads: dict[str, tuple[str, bytes]] = {}
        self.searches: list[dict] = []
        self.delay = 0.0
        self.answers: dict[str, tuple[int, dict]] = {}
        self.positions = self._scatter(len(self.records))
        self.url = f"http://127.0.0.1:{self.server_address[1]}/"
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def _scatter(self, count: int) -> np.ndarray:
        """Positions [n, 2] in clouds, one for each book."""
        books = [record["columns"].get("book", "") for record in self.records]
        middles = {
            book: np.array([np.cos(i * 1.1), np.sin(i * 1.7)]) * 3
            for i, book in enumerate(sorted(set(books)))
        }
        noise = np.random.default_rng(0).normal(0, 0.5, (count, 2))
        return np.array([middles[book] for book in books]).reshape(-1, 2) + noise

    def info(self) -> dict:
        modalities = sorted({record["modality"] for record in self.records})
        values: dict[str, dict] = {}
        for record in self.records:
            for name, value in record["columns"].items():
                values.setdefault(name, {}).setdefault(value, 0)
                values[name][value] += 1
        columns = []
        for name, counts in values.items():
            if all(isinstance(value, int) for value in counts):
                columns.append(
                    {"name": name, "kind": "number", "min": min(counts), "max": max(counts)}
                )
            else:
                shown = sorted(counts.items(), key=lambda one: -one[1])[:30]
                columns.append(
                    {
                        "name": name,
                        "kind": "text",
                        "values": [{"value": v, "count": c} for v, c in shown],
                    }
                )
        queries = [{"name": name, "takes": name} for name in ("text", "image", "audio")]
        return {
            "name": "OpenStax sample",
            "count": len(self.records),
            "scorer": "csls",
            "has_map": True,
            "modalities": [{"name": name, "takes": name} for name in modalities],
            "query": queries,
            "columns": columns,
        }

    def passing(self, asked: dict) -> list[dict]:
        """What the filters of a search let through."""
        found = [r for r in self.records if asked.get("to") in (None, r["modality"])]
        if where := asked.get("where"):
            test = self.where(where)
            found = [record for record in found if test(record["columns"])]
        if corners := asked.get("within"):
            found = [record for record in found if inside(self.positions[record["at"]], corners)]
        return found

    def where(self, expression: str):
        """Understands what the page writes: `a = 'b'`, `a in (…)`, `a >= 1`, joined by `and`."""
        tests = []
        for part in expression.split(" and "):
            name, sign, value = re.fullmatch(r"\(?(\w+) (=|in|>=|<=) (.+?)\)?", part).groups()
            if sign in ("=", "in"):
                values = {v.replace("''", "'") for v in re.findall(r"'((?:[^']|'')*)'", value)}
                tests.append(lambda columns, name=name, values=values: str(columns[name]) in values)
            else:
                limit, up = float(value), sign == ">="
                tests.append(lambda c, n=name, x=limit, up=up: c[n] >= x if up else c[n] <= x)
        return lambda columns: all(test(columns) for test in tests)

    def search(self, asked: dict) -> dict:
        found, queries = self.passing(asked), asked["queries"]
        if queries or asked.get("minus"):
            words = set(re.findall(r"\w+", " ".join(q.get("text", "") for q in queries).lower()))
            seeds = {q["key"] for q in queries if "key" in q} | {
                q["upload"] for q in queries if "upload" in q
            }
            hits = [self.hit(record, words, seeds, asked.get("minus", [])) for record in found]
            hits = [hit for hit in hits if hit["percentile"] >= asked.get("min_percentile", 0)]
            hits.sort(key=lambda hit: -hit["score"])
        else:
            hits = [
                {**record, "score": None, "percentile": None, "duplicates": [], "why": None}
                for record in found
            ]
        offset = asked["offset"]
        filters = (
            ("where", "within") if not (queries or asked.get("minus")) else ("min_percentile",)
        )
        marked = asked.get("places") and any(asked.get(name) for name in filters)
        return {
            "took_ms": 12.4,
            "total": len(hits),
            "hits": hits[offset : offset + asked["k"]],
            "places": [hit["at"] for hit in hits] if marked else None,
        }

    def hit(self, record: dict, words: set, seeds: set, minus: list) -> dict:
        own = set(re.findall(r"\w+", (record["text"] or record["item"]).lower()))
        chance = (
            int(hashlib.md5((record["key"] + "".join(sorted(seeds))).encode()).hexdigest()[:6], 16)
            / 16**6
        )
        cosine = (
            0.3 * chance
            + 0.6 * len(own & words) / max(1, len(words))
            - (0.9 if record["key"] in minus else 0)
        )
        percentile = min(99.97, 100 * min(1, max(0, 0.35 + cosine)))
        twin = self.records[(record["at"] + 1) % len(self.records)]["key"]
        return {
            **record,
            "score": cosine,
            "percentile": percentile,
            "duplicates": [twin] if record["at"] % 11 == 0 else [],
            "why": {
                "cosine": cosine,
                "hubness": 0.031,
                "dims": [
                    {"dim": dim, "share": share}
                    for dim, share in ((12, 0.11), (3, 0.07), (41, 0.05))
                ],
            },
        }


def inside(point: np.ndarray, corners: list) -> bool:
    x, y = point
    odd = False
    for (x0, y0), (x1, y1) in zip(corners, corners[1:] + corners[:1], strict=True):
        if (y0 > y) != (y1 > y) and x < (x1 - x0) * (y - y0) / (y1 - y0) + x0:
            odd = not odd
    return odd


class Handler(BaseHTTPRequestHandler):
    server: FakeServer

    def reply(
        self, body: bytes | dict | list, kind: str = "application/json", status: int = 200
    ) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        own = {"Content-Type": kind, "Content-Length": str(len(data))}
        for name, value in {**own, **HEADERS}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def replaced(self, path: str) -> bool:
        if path not in self.server.answers:
            return False
        status, body = self.server.answers[path]
        self.reply(body, status=status)
        return True

    def do_GET(self) -> None:  # noqa: N802  the name that http.server calls
        url = urlsplit(self.path)
        asked = {name: values[0] for name, values in parse_qs(url.query).items()}
        if self.replaced(url.path):
            return
        name = "index.html" if url.path == "/" else url.path.removeprefix("/static/")
        file = (STATIC / name).resolve()
        if (url.path == "/" or url.path.startswith("/static/")) and file.is_file():
            self.reply(file.read_bytes(), KINDS[file.suffix])
        elif url.path.startswith(("/thumb/", "/media/")):
            self.media(url.path.rsplit("/", 1)[1])
        elif url.path.startswith("/api/map"):
            self.map(url.path, asked)
        elif url.path == "/api/info":
            self.reply(self.server.info())
        elif url.path == "/api/items":
            keys = asked["keys"].split(",")
            self.reply([self.server.by_key[key] for key in keys if key in self.server.by_key])
        elif url.path == "/api/facets":
            counts: dict = {}
            for record in self.server.passing(asked):
                value = record["columns"][asked["column"]]
                counts[value] = counts.get(value, 0) + 1
            ordered = sorted(counts.items(), key=lambda one: -one[1])
            self.reply([{"value": value, "count": count} for value, count in ordered])
        else:
            self.reply(
                {"error": {"message": "There is nothing here.", "hint": "", "code": "missing"}},
                status=404,
            )

    def media(self, key: str) -> None:
        record = self.server.by_key.get(key)
        if record is None or record["modality"] == "text":
            self.reply({"error": {"message": "No such item."}}, status=404)
        elif record["modality"] == "audio":
            self.reply(tone(), "audio/wav")
        else:
            path = SAMPLE / record["item"]
            self.reply(path.read_bytes() if path.is_file() else b"", "image/webp")

    def map(self, path: str, asked: dict) -> None:
        records, positions = self.server.records, self.server.positions
        if path == "/api/map":
            self.reply(positions.astype("<f4").tobytes(), "application/octet-stream")
        elif path == "/api/map/keys":
            start = int(asked["offset"])
            self.reply([record["key"] for record in records[start : start + int(asked["count"])]])
        else:
            column = asked["column"]
            values = [
                r["modality"] if column == "modality" else str(r["columns"].get(column))
                for r in records
            ]
            names = sorted(set(values), key=lambda value: -values.count(value))
            names = names if len(names) <= 8 else [*names[:7], "other"]
            of = [names.index(value) if value in names else len(names) - 1 for value in values]
            if len(of) < len(positions):  # a map that is larger than the records
                of += [i % len(names) for i in range(len(positions) - len(of))]
            self.reply({"names": names, "of": of})

    def do_POST(self) -> None:  # noqa: N802  the name that http.server calls
        body = self.rfile.read(int(self.headers["Content-Length"]))
        url = urlsplit(self.path)
        if url.path == "/api/search":
            self.server.searches.append(json.loads(body))
            time.sleep(self.server.delay)
        if self.replaced(url.path):
            return
        if url.path == "/api/uploads":
            upload = hashlib.sha256(body).hexdigest()[:24]
            self.server.uploads[upload] = (self.headers["Content-Type"], body)
            self.reply({"upload": upload}, status=201)
        else:
            self.reply(self.server.search(self.server.searches[-1]))

    def log_message(self, *_: object) -> None:
        pass


def wav_header(data: bytes) -> tuple[int, int, int]:
    """Channels, rate and bits of a WAV file."""
    channels, rate, _, _, bits = struct.unpack("<HIIHH", data[22:36])
    return channels, rate, bits


if __name__ == "__main__":
    fake = FakeServer(port=int(sys.argv[1]) if len(sys.argv) > 1 else 0)
    print(fake.url)
    threading.Event().wait()
