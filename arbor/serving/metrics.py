"""Counters of an endpoint in Prometheus' text format."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Mapping

SECONDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
HELP = {
    "arbor_requests_total": "Requests by path, kind of answer and status (499: the client hung up).",
    "arbor_tokens_total": "Tokens of answered requests: computed (positions through the network), reused, generated.",
    "arbor_answers_total": "Searches by kind and whether they found an answer.",
    "arbor_request_seconds": "Seconds from a request's arrival to the end of its reply.",
    "arbor_in_flight": "Requests that are computed.",
    "arbor_waiting": "Requests that wait for a place.",
}
Labels = tuple[tuple[str, str], ...]


class Metrics:
    """Labels are of few values: a client cannot add a series by what it sends."""

    def __init__(self) -> None:
        self._counts: defaultdict[str, Counter[Labels]] = defaultdict(Counter)
        self._seconds: defaultdict[Labels, list[int]] = defaultdict(lambda: [0] * (len(SECONDS) + 1))
        self._sums: Counter[Labels] = Counter()

    def count(self, name: str, amount: float = 1, **labels: str) -> None:
        self._counts[name][_labels(labels)] += amount  # type: ignore[assignment]

    def observe(self, seconds: float, **labels: str) -> None:
        key = _labels(labels)
        self._seconds[key][bisect_left(SECONDS, seconds)] += 1
        self._sums[key] += seconds  # type: ignore[assignment]

    def render(self, gauges: Mapping[str, int]) -> str:
        """gauges: what is counted elsewhere, as it is now."""
        lines: list[str] = []
        for name, counts in self._counts.items():
            lines += _head(name, "counter")
            lines += [f"{name}{_text(labels)} {amount:g}" for labels, amount in sorted(counts.items())]
        lines += _head("arbor_request_seconds", "histogram")
        for labels, counted in sorted(self._seconds.items()):
            total = 0
            for bound, count in zip((*map(str, SECONDS), "+Inf"), counted, strict=True):
                total += count
                lines.append(f"arbor_request_seconds_bucket{_text((*labels, ('le', bound)))} {total}")
            lines.append(f"arbor_request_seconds_sum{_text(labels)} {self._sums[labels]:.6f}")
            lines.append(f"arbor_request_seconds_count{_text(labels)} {total}")
        for name, value in gauges.items():
            lines += [*_head(name, "gauge"), f"{name} {value}"]
        return "\n".join(lines) + "\n"


def _labels(labels: Mapping[str, str]) -> Labels:
    return tuple(sorted(labels.items()))


def _text(labels: Labels) -> str:
    return "{" + ",".join(f'{key}="{value}"' for key, value in labels) + "}" if labels else ""


def _head(name: str, kind: str) -> list[str]:
    return [f"# HELP {name} {HELP[name]}", f"# TYPE {name} {kind}"]
