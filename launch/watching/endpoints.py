"""A run read from the Prometheus endpoints of its ranks (``partial_fc/reports/prometheus.py``), scrape by scrape."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from http.client import HTTPException
from urllib.parse import urlsplit, urlunsplit
from urllib.request import ProxyHandler, build_opener

from prometheus_client.parser import text_string_to_metric_families

from launch.config.loading import ConfigError
from launch.watching.course import Course, RankState, Record

_PREFIX = "partial_fc_"
_KEYS = {  # of a report, for the metrics that are called otherwise
    "run_steps": "total_steps",
    "remaining_seconds": "seconds_left",
    "last_step_timestamp_seconds": "timestamp_seconds",
    "skipped_steps_total": "skipped_steps",
    "bad_images_total": "bad_images",
}
_OF_NO_REPORT = {"last_checkpoint_timestamp_seconds", "restarts"}
_ANSWER_SECONDS = 3.0
_LONGEST_ANSWER_BYTES = 1 << 24
_MOST_RECORDS = 1000


class NoAnswer(OSError):  # noqa: N818  # the name says what happened
    """Nothing answers at any of the addresses."""


@dataclass(frozen=True)
class Scrape:
    """What an endpoint answered: the run, the labels of ``run_info``, the gauges and the sums by name."""

    run: str
    facts: Mapping[str, str]
    gauges: Mapping[str, float]
    sums: Mapping[str, float]


class WatchedEndpoints:
    """The run whose ranks answer at ``addresses``: ``http://HOST:PORT/metrics``, or ``HOST:PORT`` for short.

    ConfigError for another form. What a step took is the mean over the steps between the last two reports, or, until
    a second report was seen, over all steps of the processes.
    """

    def __init__(self, addresses: Sequence[str]) -> None:
        self._ranks = [_Endpoint(metrics_url(address)) for address in addresses]
        self._records: deque[Record] = deque(maxlen=_MOST_RECORDS)
        self._last: Course | None = None
        self._silent_since = ""

    def course(self) -> Course:
        """What is known by now. NoAnswer where nothing has answered yet; ValueError for an answer of something else."""
        with ThreadPoolExecutor(len(self._ranks)) as threads:
            list(threads.map(_Endpoint.look, self._ranks))
        scrapes = [rank.scrape for rank in self._ranks if rank.scrape]
        if not scrapes:
            return self._ended()
        if len(runs := {scrape.run for scrape in scrapes}) > 1:
            raise ValueError(f"these endpoints are of several runs, {', '.join(sorted(runs))}: name those of one")
        self._take(_of_all_ranks([rank.figures for rank in self._ranks if rank.figures], scrapes))
        self._silent_since, facts = "", scrapes[0].facts
        saved = [scrape.gauges.get("last_checkpoint_timestamp_seconds", 0.0) for scrape in scrapes]
        self._last = Course(
            run=scrapes[0].run,
            facts=[facts["objective"], f"{int(facts['num_classes']):,} classes", f"{facts['world_size']} ranks"],
            records=list(self._records),
            saved_timestamp_seconds=max(saved) or None,
            ranks=[rank.state() for rank in self._ranks] if len(self._ranks) > 1 else (),
        )
        return self._last

    def _take(self, record: Record) -> None:
        if not record:
            return
        if self._records and self._records[-1]["timestamp_seconds"] == record["timestamp_seconds"]:
            self._records.pop()  # the same report: no step since
        while self._records and self._records[-1]["step"] >= record["step"]:
            self._records.pop()  # a resumed run does some steps again
        self._records.append(record)

    def _ended(self) -> Course:
        """The last course, and that nothing answers any more."""
        if self._last is None:
            raise NoAnswer(
                f"{self._ranks[0].problem}. A training answers from its start to its end, unless report.prometheus is "
                "false, at report.port + its local rank, to other machines where report.address opens it to them"
            )
        self._silent_since = self._silent_since or time.strftime("%H:%M:%S")
        last = self._records[-1] if self._records else {}
        is_done = bool(last) and last["step"] >= last["total_steps"]
        was_to_end = bool(last) and last["timestamp_seconds"] + last.get("seconds_left", math.inf) < time.time()
        said = f"no endpoint answers since {self._silent_since}"
        if is_done:
            note = f"the run has ended: all steps are done, and {said}"
        else:
            note = f"{said}: the run {'was to end by now' if was_to_end else 'has ended, or is out of reach'}"
        ranks = [rank.state() for rank in self._ranks] if self._last.ranks else ()
        return replace(self._last, ranks=ranks, note=note, is_over=is_done or was_to_end)


class _Endpoint:
    """One rank: its last answer, and its figures since the report before the last."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.scrape: Scrape | None = None
        self.figures: Record = {}
        self.problem = ""
        self._sums: Mapping[str, float] = {}
        self._sums_before: Mapping[str, float] = {}

    def look(self) -> None:
        """Ask once; ``scrape`` is None where nothing answers, and ``problem`` says why."""
        try:
            text = _page(self._url)
        except (OSError, HTTPException) as error:
            self.scrape, self.problem = None, f"{self._url} does not answer ({getattr(error, 'reason', error)})"
            return
        self.scrape = scrape_of(text, self._url)
        sums = self.scrape.sums
        if sums.get("steps_total") != self._sums.get("steps_total"):
            is_new = sums.get("steps_total", 0) < self._sums.get("steps_total", 0)  # a process that was started again
            self._sums_before, self._sums = {} if is_new else self._sums, sums
        self.figures = _figures(self.scrape, self._sums_before)

    def state(self) -> RankState:
        """For the table of ranks."""
        return RankState(urlsplit(self._url).netloc, self.figures if self.scrape else None)


def metrics_url(address: str) -> str:
    """The URL that ``address`` means. ConfigError for what is no address of an endpoint."""
    try:
        parts = urlsplit(address if "://" in address else f"http://{address}")
        is_endpoint = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        is_endpoint = False
    if not is_endpoint:
        raise ConfigError(f"{address}: expected an endpoint such as http://127.0.0.1:9410/metrics or 127.0.0.1:9410")
    return urlunsplit(parts if parts.path.strip("/") else parts._replace(path="/metrics"))


def scrape_of(text: str, where: str) -> Scrape:
    """What the page ``text`` says of a run. ValueError naming ``where`` for a page of something else."""
    gauges: dict[str, float] = {}
    sums: dict[str, float] = {}
    facts: Mapping[str, str] = {}
    try:
        for name, kind, labels, value in _samples(text):
            if name == "run_info":
                facts = labels
            elif kind == "gauge":
                gauges[name] = value
            elif name.endswith(("_total", "_sum", "_count")):
                sums[name] = value
    except ValueError as error:
        raise ValueError(f"{where} answers with no metrics ({error})") from error
    if not facts:
        raise ValueError(f"{where} answers, but not as a training of partial-fc: expected partial_fc_run_info there")
    return Scrape(facts["run"], facts, gauges, sums)


def _samples(text: str) -> Iterator[tuple[str, str, Mapping[str, str], float]]:
    """Name, less the prefix, kind, labels and value of each metric of this project."""
    for family in text_string_to_metric_families(text):
        if family.name.startswith(_PREFIX):
            for sample in family.samples:
                yield sample.name.removeprefix(_PREFIX), family.type, sample.labels, sample.value


def _page(url: str) -> str:
    direct = build_opener(ProxyHandler({}))  # ranks are near: what the environment says of the way out is not for them
    with direct.open(url, timeout=_ANSWER_SECONDS) as answer:
        content: bytes = answer.read(_LONGEST_ANSWER_BYTES)
    return content.decode("utf-8", errors="replace")


def _figures(scrape: Scrape, sums_before: Mapping[str, float]) -> Record:
    """A report by its own names; empty before the first one. Rates are of this rank alone."""
    if "step" not in scrape.gauges:
        return {}
    counters = {name: value for name, value in scrape.sums.items() if name in _KEYS}
    shown = {name: value for name, value in scrape.gauges.items() if name not in _OF_NO_REPORT}
    record = {_KEYS.get(name, name): value for name, value in {**shown, **counters}.items()}
    since = {name: value - sums_before.get(name, 0.0) for name, value in scrape.sums.items()}
    steps, seconds = since["step_seconds_count"], since["step_seconds_sum"]
    if steps > 0 and seconds > 0:
        record["step_seconds"] = seconds / steps
        record["images_per_second"] = since["images_total"] / seconds
        record["data_wait_ratio"] = since["data_wait_seconds_sum"] / seconds
    return record


def _of_all_ranks(figures: Sequence[Record], scrapes: Sequence[Scrape]) -> Record:
    """The figures of the run from those of the ranks that answer; all ranks take an equal share of the images."""
    if not figures:
        return {}
    record = dict(figures[0])
    for key, joined in (("data_wait_ratio", max), ("bad_images", sum)):
        if values := [each[key] for each in figures if key in each]:
            record[key] = joined(values)
    if "images_per_second" in record:
        record["images_per_second"] *= int(scrapes[0].facts["world_size"])
    return record
