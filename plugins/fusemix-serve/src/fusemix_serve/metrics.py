"""Counters in the text format of Prometheus.

The format: https://prometheus.io/docs/instrumenting/exposition_formats/
"""

from __future__ import annotations

import bisect
from collections import Counter, defaultdict

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Metrics:
    """The counts of a server since it started. Used by the event loop only.

    Routes are labelled by their pattern, never by the path of a request, so that clients can't make
    up labels.
    """

    def __init__(self) -> None:
        self.in_flight = 0
        self.rejected = 0
        self._requests: Counter[tuple[str, int]] = Counter()
        self._buckets: dict[str, list[int]] = defaultdict(lambda: [0] * (len(_SECONDS) + 1))
        self._spent: Counter[str] = Counter()
        self._batches: Counter[str] = Counter()
        self._items: Counter[str] = Counter()

    def request(self, route: str, status: int, seconds: float) -> None:
        """Count an answered request."""
        self._requests[route, status] += 1
        self._buckets[route][bisect.bisect_left(_SECONDS, seconds)] += 1
        self._spent[route] += seconds  # pyrefly: ignore
        self.rejected += status == 429

    def batch(self, name: str, items: int) -> None:
        """Count a batch of encoded items."""
        self._batches[name] += 1
        self._items[name] += items

    def text(self) -> str:
        """All of it."""
        lines = ["# TYPE fusemix_requests_total counter"]
        for (route, status), count in sorted(self._requests.items()):
            lines.append(f'fusemix_requests_total{{route="{route}",status="{status}"}} {count}')
        lines.append("# TYPE fusemix_request_seconds histogram")
        for route, buckets in sorted(self._buckets.items()):
            total = 0
            for bound, count in zip((*_SECONDS, "+Inf"), buckets, strict=True):
                total += count
                label = f'route="{route}",le="{bound}"'
                lines.append(f"fusemix_request_seconds_bucket{{{label}}} {total}")
            lines.append(f'fusemix_request_seconds_sum{{route="{route}"}} {self._spent[route]:.6f}')
            lines.append(f'fusemix_request_seconds_count{{route="{route}"}} {total}')
        for name, counts in (("batches", self._batches), ("items", self._items)):
            lines.append(f"# TYPE fusemix_encoded_{name}_total counter")
            for modality, count in sorted(counts.items()):
                lines.append(f'fusemix_encoded_{name}_total{{modality="{modality}"}} {count}')
        lines += [
            "# TYPE fusemix_rejected_total counter",
            f"fusemix_rejected_total {self.rejected}",
            "# TYPE fusemix_in_flight gauge",
            f"fusemix_in_flight {self.in_flight}",
        ]
        return "\n".join(lines) + "\n"
