"""What Prometheus reads at ``/metrics``."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from tinyseg.serve.live import Live
from tinyseg.serve.viewers import Viewers

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)


class Metrics:
    """A registry of its own, so that a program with metrics of its own may serve too."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._stages = Histogram(
            "tinyseg_stage_seconds", "Time of a stage of a frame", ["stage"], registry=self._registry, buckets=SECONDS
        )
        self._requests = Counter(
            "tinyseg_http_requests",
            "Requests by route and status",
            ["method", "route", "status"],
            registry=self._registry,
        )

    def observe(self, stage: str, seconds: float) -> None:
        """A stage of a frame took so long; from any thread."""
        self._stages.labels(stage).observe(seconds)

    def request(self, method: str, route: str, status: int) -> None:
        """A request was answered. route is the pattern, not what was asked: a stranger must not make labels."""
        self._requests.labels(method, route, str(status)).inc()

    def watch(self, live: Live, viewers: Viewers) -> None:
        """Read a live thread's counts whenever somebody asks."""
        self._registry.register(_LiveCollector(live, viewers))

    def text(self) -> bytes:
        return generate_latest(self._registry)


class _LiveCollector(Collector):
    def __init__(self, live: Live, viewers: Viewers) -> None:
        self._live, self._viewers = live, viewers

    def collect(self) -> Iterator[Metric]:
        snapshot = self._live.latest
        figures = snapshot.figures if snapshot is not None else None
        yield CounterMetricFamily("tinyseg_frames", "Frames taken from the source", self._live.frames)
        yield CounterMetricFamily(
            "tinyseg_dropped_frames", "Frames of a live source that came too fast", figures.dropped if figures else 0
        )
        yield GaugeMetricFamily(
            "tinyseg_frames_per_second", "Frame rate of the last two seconds", figures.fps if figures else 0
        )
        yield GaugeMetricFamily("tinyseg_objects", "Objects followed", len(snapshot.objects) if snapshot else 0)
        yield GaugeMetricFamily("tinyseg_stream_viewers", "Viewers of pictures", self._viewers.streams)
        yield GaugeMetricFamily("tinyseg_channel_viewers", "Viewers of masks", self._viewers.channels)
        playing = snapshot is not None and snapshot.status == "playing"
        yield GaugeMetricFamily("tinyseg_playing", "1 while frames are taken", float(playing))
