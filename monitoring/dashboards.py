#!/usr/bin/env python3
"""Writes the four Grafana dashboards below grafana/dashboards. Change a panel here, run this, commit both; a test compares them."""

from __future__ import annotations

import json
import pathlib

FOLDER = pathlib.Path(__file__).parent / "grafana" / "dashboards"
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
# What every query is narrowed to by the variables above the panels.
HERE = 'job=~"$job", pool=~"$pool", instance=~"$instance"'
GREEN_TO_RED = [{"color": "green", "value": None}, {"color": "red", "value": 1}]
RED_TO_GREEN = [{"color": "red", "value": None}, {"color": "green", "value": 1}]


def panel(kind: str, title: str, unit: str, *queries: tuple[str, str], width: int = 8, height: int = 8, text: str = "", **options) -> dict:
    """A panel of queries, each with its legend; `@` in a query stands for what the variables choose."""
    targets = [
        {"refId": chr(ord("A") + number), "datasource": SOURCE, "expr": expr.replace("@", HERE), "legendFormat": legend, "range": True}
        for number, (expr, legend) in enumerate(queries)
    ]
    if kind == "table":
        targets = [target | {"format": "table", "instant": True, "range": False} for target in targets]
    defaults = {"unit": unit, "min": 0} | options.pop("defaults", {})
    return {
        "type": kind, "title": title, "description": text, "datasource": SOURCE, "targets": targets,
        "fieldConfig": {"defaults": defaults, "overrides": []}, "options": options, "gridPos": {"w": width, "h": height},
    }


def graph(title: str, unit: str, *queries: tuple[str, str], stacked: bool = False, **more) -> dict:
    """Lines over time."""
    custom = {"fillOpacity": 10, "stacking": {"mode": "normal" if stacked else "none"}}
    options = {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi", "sort": "desc"}}
    return panel("timeseries", title, unit, *queries, defaults={"custom": custom}, **options, **more)


def stat(title: str, unit: str, query: str, steps: list | None = None, **more) -> dict:
    """One figure as it is now, coloured by where it stands among the steps."""
    colours = {"thresholds": {"mode": "absolute", "steps": steps or [{"color": "blue", "value": None}]}}
    options = {"colorMode": "value", "graphMode": "area", "reduceOptions": {"calcs": ["lastNotNull"]}}
    return panel("stat", title, unit, (query, ""), width=4, height=4, defaults=colours, **options, **more)


def quantile(share: float, metric: str, by: str = "") -> str:
    """A quantile of a histogram over the peers."""
    return f"histogram_quantile({share}, sum by (le{', ' + by if by else ''}) (rate({metric}_bucket{{@}}[$__rate_interval])))"


def rate(metric: str, by: str, labels: str = "") -> str:
    """A rate per second, added up."""
    return f"sum by ({by}) (rate({metric}{{@{', ' + labels if labels else ''}}}[$__rate_interval]))"


def dashboard(uid: str, title: str, text: str, *panels: dict) -> dict:
    """Panels from left to right and from top to bottom, 24 columns wide."""
    x = y = row = 0
    for number, shown in enumerate(panels, start=1):
        place = shown["gridPos"]
        if x + place["w"] > 24:
            x, y, row = 0, y + row, 0
        place |= {"x": x, "y": y}
        shown["id"] = number
        x, row = x + place["w"], max(row, place["h"])

    def variable(name: str, query: str) -> dict:
        return {
            "name": name, "label": name.capitalize(), "type": "query", "datasource": SOURCE, "query": {"query": query, "refId": name},
            "refresh": 2, "includeAll": True, "multi": True, "allValue": ".*", "current": {"text": "All", "value": "$__all"}, "sort": 1,
        }

    return {
        "uid": uid, "title": title, "description": text, "tags": ["palm"], "timezone": "browser", "schemaVersion": 39, "editable": True,
        "refresh": "30s", "time": {"from": "now-3h", "to": "now"}, "graphTooltip": 1,
        "links": [{"type": "dashboards", "title": "PALM", "tags": ["palm"], "asDropdown": True, "includeVars": True, "keepTime": True}],
        "templating": {"list": [
            {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus", "current": {}},
            variable("job", "label_values(palm_build_info, job)"),
            variable("pool", 'label_values(palm_build_info{job=~"$job"}, pool)'),
            variable("instance", 'label_values(palm_build_info{job=~"$job", pool=~"$pool"}, instance)'),
        ]},
        "panels": list(panels),
    }


POOL = dashboard(
    "palm-pool", "PALM / Pool overview", "Is the pool well, how much more may fail, and who is there.",
    stat("Peers that may still be lost", "none", "min(palm_pool_peers_can_lose{@})", RED_TO_GREEN, text="The least that any peer counts."),
    stat("Peers up", "none", "sum(up{@})"),
    stat("Peers that do not answer", "none", "count(up{@} == 0) or vector(0)", GREEN_TO_RED),
    stat("Objects unreadable", "none", 'sum(palm_objects{@, redundancy="unreadable"})', GREEN_TO_RED),
    stat("Objects without redundancy", "none", 'sum(palm_objects{@, redundancy="none"})', GREEN_TO_RED),
    stat("Room left", "percentunit", "sum(palm_backend_free_bytes{@}) / (sum(palm_backend_free_bytes{@}) + sum(palm_backend_bytes{@}))"),
    graph("Objects by redundancy", "none", ("sum by (redundancy) (palm_objects{@})", "{{redundancy}}"), stacked=True),
    graph("Bytes of objects", "bytes", ("sum by (redundancy) (palm_object_bytes{@})", "{{redundancy}}"), stacked=True),
    graph("Members as each peer sees them", "none", ('palm_peers{@, state="live"}', "live, seen by {{peer}}"), ('palm_peers{@, state="absent"}', "absent, seen by {{peer}}")),
    graph("S3 requests", "reqps", (rate("palm_s3_requests_total", "code_class"), "{{code_class}}")),
    graph("S3 traffic", "Bps", (rate("palm_s3_received_bytes_total", "pool"), "in"), (rate("palm_s3_sent_bytes_total", "pool"), "out")),
    graph("Voters reachable", "none", ("palm_ledger_voters_reachable{@}", "{{peer}}"), ("max(palm_ledger_voters{@})", "all voters")),
    graph("Ledger latency", "s", (quantile(0.5, "palm_ledger_duration_seconds", "operation"), "{{operation}}, median"), (quantile(0.99, "palm_ledger_duration_seconds", "operation"), "{{operation}}, 99 of 100")),
    graph("Ledger conflicts and failures", "ops", (rate("palm_ledger_conflicts_total", "pool"), "conflicts"), (rate("palm_ledger_failures_total", "operation, reason"), "{{operation}}: {{reason}}")),
    graph("Since the metadata copy was level", "s", ("time() - palm_ledger_level_timestamp_seconds{@}", "{{peer}}")),
    panel("table", "Alerts", "none", ('sort_desc(ALERTS{job=~"$job", alertstate="firing"}) or vector(0)', "{{alertname}}"), width=12),
    panel("table", "Versions", "none", ("count by (version) (palm_build_info{@})", "{{version}}"), width=12),
)

S3 = dashboard(
    "palm-s3", "PALM / S3", "What clients ask, how it is answered and how long that takes.",
    stat("Requests", "reqps", "sum(rate(palm_s3_requests_total{@}[$__rate_interval]))"),
    stat("Failing with 5xx", "percentunit", 'sum(rate(palm_s3_requests_total{@, code_class="5xx"}[$__rate_interval])) / sum(rate(palm_s3_requests_total{@}[$__rate_interval]))', [{"color": "green", "value": None}, {"color": "red", "value": 0.01}]),
    stat("In flight", "none", "sum(palm_s3_requests_in_flight{@})"),
    stat("In", "Bps", "sum(rate(palm_s3_received_bytes_total{@}[$__rate_interval]))"),
    stat("Out", "Bps", "sum(rate(palm_s3_sent_bytes_total{@}[$__rate_interval]))"),
    stat("GET, first byte, 99 of 100", "s", 'histogram_quantile(0.99, sum by (le) (rate(palm_s3_time_to_first_byte_seconds_bucket{@, operation="GetObject"}[$__rate_interval])))'),
    graph("Requests by operation", "reqps", (rate("palm_s3_requests_total", "operation"), "{{operation}}"), width=12),
    graph("Requests by code", "reqps", (rate("palm_s3_requests_total", "code_class"), "{{code_class}}"), width=12),
    graph("Refused or failed, by operation", "reqps", (rate("palm_s3_requests_total", "operation, code_class", 'code_class=~"4xx|5xx|aborted"'), "{{operation}} {{code_class}}"), width=12),
    graph("Time to first byte, 99 of 100", "s", (quantile(0.99, "palm_s3_time_to_first_byte_seconds", "operation"), "{{operation}}"), width=12),
    graph("Duration, median", "s", (quantile(0.5, "palm_s3_request_duration_seconds", "operation"), "{{operation}}"), width=12),
    graph("Duration, 99 of 100", "s", (quantile(0.99, "palm_s3_request_duration_seconds", "operation"), "{{operation}}"), width=12),
    graph("Traffic by peer", "Bps", (rate("palm_s3_received_bytes_total", "peer"), "{{peer}} in"), (rate("palm_s3_sent_bytes_total", "peer"), "{{peer}} out")),
    graph("In flight by peer", "none", ("palm_s3_requests_in_flight{@}", "{{peer}}")),
    graph("Bodies buffered", "bytes", ("palm_buffer_bytes{@}", "{{peer}}"), ("min(palm_buffer_free_bytes{@})", "least free")),
    graph("Slow and damaged reads", "ops", (rate("palm_hedged_reads_total", "pool"), "hedged"), (rate("palm_corrupt_shards_total", "pool"), "corrupt shards")),
    graph("Incomplete uploads", "bytes", ("sum by (pool) (palm_incomplete_upload_bytes{@})", "{{pool}}")),
    graph("Lifecycle", "ops", (rate("palm_lifecycle_actions_total", "action"), "{{action}}")),
    graph("Events", "ops", (rate("palm_events_total", "outcome"), "{{outcome}}"), ("max(palm_events_waiting{@})", "waiting")),
    graph("Access log lines", "ops", (rate("palm_access_log_lines_total", "outcome"), "{{outcome}}")),
)

STORAGE = dashboard(
    "palm-storage", "PALM / Storage and repair", "What the backends hold, what repair and scrub do, and what is collected.",
    stat("Backends that are ill", "none", "sum(palm_backend_ills{@})", GREEN_TO_RED),
    stat("Corrupt fragments now", "none", "sum(palm_corrupt_fragments{@})", GREEN_TO_RED),
    stat("Segments to mend", "none", "sum(palm_segments_to_mend{@})"),
    stat("Repair ends in", "s", "max(palm_repair_eta_seconds{@})"),
    stat("Oldest repair", "s", "max(palm_repair_queue_age_seconds{@})"),
    stat("Exposed objects", "none", "sum(palm_objects_exposed{@})", text="A single disk holds enough of them to rebuild them with the pool key."),
    graph("Stored by backend", "bytes", ("palm_backend_bytes{@}", "{{peer}} {{backend}}"), stacked=True),
    graph("Free by backend", "bytes", ("palm_backend_free_bytes{@}", "{{peer}} {{backend}}")),
    graph("Fragments by backend", "none", ("palm_backend_fragments{@}", "{{peer}} {{backend}}")),
    graph("State of backends", "none", ('sum by (state) (palm_backend_state{@})', "{{state}}"), stacked=True),
    graph("Backend latency, 99 of 100", "s", (quantile(0.99, "palm_backend_operation_seconds", "peer, operation"), "{{peer}} {{operation}}")),
    graph("Backend operations", "ops", (rate("palm_backend_operations_total", "operation, outcome"), "{{operation}} {{outcome}}")),
    graph("Backend traffic", "Bps", (rate("palm_backend_transfer_bytes_total", "peer, operation"), "{{peer}} {{operation}}")),
    graph("Repair queue", "none", ("palm_repair_queue{@}", "{{peer}}")),
    graph("Repair queue, bytes", "bytes", ("palm_repair_queue_bytes{@}", "{{peer}}")),
    graph("Repair traffic", "Bps", (rate("palm_repair_bytes_total", "direction"), "{{direction}}")),
    graph("Segments repaired", "ops", (rate("palm_repaired_segments_total", "peer"), "{{peer}}")),
    graph("Since objects were counted", "s", ("time() - (palm_objects_counted_timestamp_seconds{@} > 0)", "{{peer}}")),
    graph("Scrub, share of this round", "percentunit", ("palm_scrub_fragments_checked{@} / (palm_scrub_fragments{@} > 0)", "{{peer}}")),
    graph("Corrupt fragments found", "none", ("increase(palm_corrupt_fragments_total{@}[1h])", "{{peer}}, in an hour")),
    graph("Trash", "bytes", ("palm_gc_trash_bytes{@}", "{{peer}}")),
    graph("Collected fragments", "ops", (rate("palm_collected_fragments_total", "peer"), "{{peer}}")),
    graph("Orphans", "none", ("palm_scrub_orphans{@}", "{{peer}}")),
    graph("Segments written with less redundancy", "ops", (rate("palm_reduced_segments_total", "peer"), "{{peer}}")),
)

PEER = dashboard(
    "palm-peer", "PALM / Peer", "One peer from inside: process, links, index. Choose it above.",
    stat("Up since", "dateTimeFromNow", "max(process_start_time_seconds{@}) * 1000"),
    stat("Version", "none", "count by (version) (palm_build_info{@})"),
    stat("Resident memory", "bytes", "max(process_resident_memory_bytes{@})"),
    stat("Draining", "none", "max(palm_peer_draining{@})"),
    stat("Records to catch up", "none", "max(palm_ledger_catch_up_records{@})"),
    stat("Open invitations", "none", "max(palm_join_tokens{@})"),
    graph("CPU", "none", ("rate(process_cpu_seconds_total{@}[$__rate_interval])", "{{peer}}, cores")),
    graph("Memory", "bytes", ("process_resident_memory_bytes{@}", "{{peer}}, resident")),
    graph("File descriptors", "none", ("process_open_fds{@}", "{{peer}}"), ("min(process_max_fds{@})", "limit")),
    graph("Threads", "none", ("process_threads{@}", "{{peer}}")),
    graph("Round trips", "s", ("palm_link_round_trip_seconds{@}", "{{peer}} to {{to}}")),
    graph("Packets lost", "percentunit", ("rate(palm_link_packets_lost_total{@}[$__rate_interval]) / (rate(palm_link_packets_total{@}[$__rate_interval]) > 0)", "{{peer}} to {{to}}")),
    graph("Traffic with members", "Bps", (rate("palm_link_bytes_total", "peer, to, direction"), "{{peer}}, {{to}} {{direction}}")),
    graph("Ledger, 99 of 100", "s", (quantile(0.99, "palm_ledger_duration_seconds", "peer, operation"), "{{peer}} {{operation}}")),
    graph("Index on disk", "bytes", ("palm_index_bytes{@}", "{{peer}}"), ("palm_index_pending_compaction_bytes{@}", "{{peer}}, to be merged")),
    graph("Index makes writers wait", "none", ("palm_index_write_stopped{@}", "{{peer}} stopped"), ("palm_index_write_slowed_bytes{@} > bool 0", "{{peer}} slowed")),
    graph("Invitations lapse in", "s", ("palm_join_token_expiry_timestamp_seconds{@} - time()", "{{peer}}"), text="Negative: there is none.", ),
    graph("Access keys lapse in", "s", ("palm_access_key_expiry_timestamp_seconds{@} - time()", "{{peer}}"), text="Negative: none does."),
)


def text(shown: dict) -> str:
    return json.dumps(shown, indent=1) + "\n"


ALL = {f"{shown['uid'].removeprefix('palm-')}.json": text(shown) for shown in (POOL, S3, STORAGE, PEER)}

if __name__ == "__main__":
    for name, content in ALL.items():
        (FOLDER / name).write_text(content)
