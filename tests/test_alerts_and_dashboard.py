"""Alerts and dashboard ask only for what the code exports, and every alert tells what to do."""

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import promql_parser
import pytest
import yaml
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families

from app import create_app
from config import Settings
from jobs.presence import Identity, sign_in
from telemetry.metrics import EVENTS
from tests.conftest import ROOT

ALERTS = [
    rule
    for group in yaml.safe_load((ROOT / "deploy/prometheus/alerts.yml").read_text())["groups"]
    for rule in group["rules"]
]
DASHBOARD = json.loads((ROOT / "deploy/grafana/whisper-queue.json").read_text())
QUERIES = [target["expr"].replace("$__rate_interval", "5m") for p in DASHBOARD["panels"] for target in p["targets"]]
GUIDE = (ROOT / "docs" / "operations.md").read_text()
ADDED = {"le"}  # by the library


def selectors(query: str) -> Iterator[Any]:
    """Each metric that a query names, anywhere in it."""
    waiting = [promql_parser.parse(query)]
    while waiting:
        node = waiting.pop()
        if isinstance(node, promql_parser.VectorSelector):
            yield node
        names = ("expr", "lhs", "rhs", "vector_selector", "vs", "param")
        waiting += [part for name in names if (part := getattr(node, name, None)) is not None]
        waiting += [part for part in getattr(node, "args", None) or [] if not isinstance(part, str)]


@pytest.fixture
def exported(settings: Settings) -> dict[str, set[str]]:
    """The labels of each sample by its name: of counters as they are declared, of gauges as they are scraped."""
    found: dict[str, set[str]] = {}
    for told in (one for several in EVENTS.values() for one in several):
        for family in told.metric.describe():
            labels = set(told.labels)
            kinds = {"counter": ["_total"], "histogram": ["_bucket", "_count", "_sum"]}[family.type]
            found |= {f"{family.name}{kind}": labels | (ADDED if kind == "_bucket" else set()) for kind in kinds}
    ill = {"code": "storage_away", "message": "The storage is away.", "since": datetime.now(UTC)}
    sign_in(Identity("worker", "host", 1, 2, ("transcription.high",)), illness=ill)
    text = TestClient(create_app(settings), base_url="http://127.0.0.1").get("/metrics").text
    for family in text_string_to_metric_families(text):
        found.setdefault(family.name, set()).update(*(sample.labels for sample in family.samples))
    return (
        found
        | {"whisper_queue_info": {"version"}}
        | {
            f"whisper_queue_device_{name}": {"worker", "device"}
            for name in ("memory_used_bytes", "memory_free_bytes", "windows_waiting")
        }
    )


@pytest.mark.parametrize("query", [*(rule["expr"] for rule in ALERTS), *QUERIES])
def test_a_query_names_only_metrics_and_labels_that_are_exported(query: str, exported: dict[str, set[str]]) -> None:
    named = list(selectors(query))
    assert named, query
    for selector in named:
        assert selector.name in exported
        assert {matcher.name for matcher in selector.matchers.matchers} <= exported[selector.name]
    asked = {name.strip() for group in re.findall(r"by \(([^)]*)\)", query) for name in group.split(",")}
    assert asked <= set().union(*(exported[selector.name] for selector in named))


def test_a_metric_that_is_not_there_would_be_noticed(exported: dict[str, set[str]]) -> None:
    (selector,) = selectors("sum(rate(whisper_queue_unicorns_total{colour='red'}[5m]))")
    assert selector.name not in exported
    assert [matcher.name for matcher in selector.matchers.matchers] == ["colour"]


def test_every_alert_has_a_runbook_and_every_runbook_an_alert() -> None:
    names = [rule["alert"] for rule in ALERTS]
    assert len(set(names)) == len(names) > 10
    assert re.findall(r"^### (WhisperQueue\w+)$", GUIDE, re.MULTILINE) == names
    for rule in ALERTS:
        assert rule["annotations"]["runbook"] == f"docs/operations.md#{rule['alert'].lower()}"
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert rule["annotations"]["summary"]


def test_the_dashboard_has_no_panel_over_another() -> None:
    places = [panel["gridPos"] for panel in DASHBOARD["panels"]]
    cells = [(x, y) for p in places for x in range(p["x"], p["x"] + p["w"]) for y in range(p["y"], p["y"] + p["h"])]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(places)
