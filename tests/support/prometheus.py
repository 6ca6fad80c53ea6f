"""A real Prometheus for tests: Debian's, taken out of its package, scraping a cluster over TLS.

apt-get download prometheus && dpkg -x prometheus_*.deb ~/.cache/etcdtw/prometheus
"""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from tests.support.cluster_processes import Cluster, ClusterMember
from tests.support.ports import free_port

MIXIN: Final = (
    Path(__file__).resolve().parent.parent / "recorded" / "prometheus" / "etcd-mixin.json"
)
CACHED: Final = Path.home() / ".cache" / "etcdtw" / "prometheus" / "usr" / "bin" / "prometheus"
SCRAPE_S: Final = 1
RATE: Final = "10s"
"""What `$__rate_interval` stands for, and what minutes of rates are shortened to."""
START_S: Final = 30.0
QUERY_S: Final = 10.0
SHORTENED: Final = {
    "[120s]": f"[{RATE}]",
    "[5m]": f"[{RATE}]",
    "[15m]": f"[{RATE}]",
    "[15m:1m]": "[60s:1s]",
    "[4h]": "[30s]",
}
"""Windows of alerts: nobody waits for hours.  Selectors, functions and comparisons stay."""
PATIENCE_S: Final = 2.0
"""What a minute of an alert's patience (`for`) is shortened to, as its windows are."""
VARIABLES: Final = {"$job": "etcd", "$cluster": "tests", "$__rate_interval": RATE}


class Alert(NamedTuple):
    """One rule of etcd's; ``name`` tells it from others: some stand twice, by severity."""

    name: str
    value: str
    condition: str
    patience_s: float


def find_prometheus() -> str | None:
    """Return the program, on the path or in the cache; None: there is none."""
    return shutil.which("prometheus") or (str(CACHED) if CACHED.exists() else None)


def mixin() -> dict[str, Any]:
    """Return etcd's dashboards and alerts."""
    found: dict[str, Any] = json.loads(MIXIN.read_text(encoding="utf-8"))
    return found


def shortened(expression: str) -> str:
    """Return an expression with values for its variables and short windows."""
    for name, value in VARIABLES.items():
        expression = expression.replace(name, value)
    for window, short in SHORTENED.items():
        expression = expression.replace(window, short)
    return expression


def panel_expressions() -> list[str]:
    """Return those of both dashboards and of their variables, as they are recorded."""
    kinds = ("dashboard", "dashboard of Grafana 7", "variables")
    return [one["expr"] for kind in kinds for one in mixin()[kind]]


def alerts() -> list[Alert]:
    """Return etcd's rules, with short windows."""
    found = []
    for rule in mixin()["alerts"]:
        value = shortened(rule["value"])
        condition = f"{value} {shortened(rule['comparison'])}"
        if "and" in rule:
            condition += f" and {shortened(rule['and'])}"
        minutes = int(rule["for"].removesuffix("m"))
        name = f"{rule['alert']}_{rule['severity']}"
        found.append(Alert(name, value, condition, minutes * PATIENCE_S))
    return found


class Prometheus:
    """Scrapes ``cluster`` from start to end of the block, and evaluates the alerts."""

    def __init__(self, program: str, cluster: Cluster, folder: Path) -> None:
        self._program = program
        self._folder = folder
        self._port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)
        rules = [
            {"alert": one.name, "expr": one.condition, "for": f"{one.patience_s:.0f}s"}
            for one in alerts()
        ]
        (folder / "rules.yml").write_text(
            json.dumps({"groups": [{"name": "etcd", "rules": rules}]})
        )
        (folder / "prometheus.yml").write_text(json.dumps(_configuration(cluster)))

    def __enter__(self) -> Prometheus:
        command = [
            *("nice", "-n", "19", self._program),
            f"--config.file={self._folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={self._folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{self._port}",
            "--query.lookback-delta=5s",
        ]
        with (self._folder / "log").open("wb") as log:
            environment = {**os.environ, "GOMAXPROCS": "1"}
            self._process = subprocess.Popen(
                command, stdout=log, stderr=log, cwd=self._folder, env=environment
            )
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            try:
                self.query("1")
            except OSError:
                assert self._process.poll() is None, (self._folder / "log").read_text()[-2000:]
                time.sleep(0.1)
            else:
                return self
        raise TimeoutError("Prometheus does not answer")

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(START_S)

    def query(self, expression: str) -> list[float]:
        """Return the values of the series of an expression, without those that are no number."""
        answer = self._get("query?" + urllib.parse.urlencode({"query": expression}))
        data = answer["data"]
        if data["resultType"] == "scalar":
            return [float(data["result"][1])]
        values = [float(series["value"][1]) for series in data["result"]]
        return [value for value in values if not math.isnan(value)]

    def firing(self) -> set[str]:
        """Return the names of the alerts that fire now."""
        answer = self._get("alerts")
        return {
            one["labels"]["alertname"]
            for one in answer["data"]["alerts"]
            if one["state"] == "firing"
        }

    def _get(self, path: str) -> dict[str, Any]:
        url = f"http://127.0.0.1:{self._port}/api/v1/{path}"
        with urllib.request.urlopen(url, timeout=QUERY_S) as answer:
            found: dict[str, Any] = json.load(answer)
        assert found["status"] == "success", found
        return found


def _configuration(cluster: Cluster) -> dict[str, Any]:
    tls = cluster.tls
    assert tls is not None
    return {
        "global": {"scrape_interval": f"{SCRAPE_S}s", "evaluation_interval": f"{SCRAPE_S}s"},
        "rule_files": ["rules.yml"],
        "scrape_configs": [
            {
                "job_name": VARIABLES["$job"],
                "scheme": "https",
                "scrape_timeout": f"{SCRAPE_S}s",
                "tls_config": {
                    "ca_file": str(tls.ca_file),
                    "cert_file": tls.client.cert_file,
                    "key_file": tls.client.key_file,
                },
                "static_configs": [
                    {
                        "targets": _targets(cluster.all),
                        "labels": {"cluster": VARIABLES["$cluster"]},
                    }
                ],
            }
        ],
    }


def _targets(members: Sequence[ClusterMember]) -> list[str]:
    return [member.endpoint for member in members]


def metric_names(expression: str) -> set[str]:
    """Return the names of the metrics that an expression asks for."""
    return set(re.findall(r"\b((?:etcd|grpc|process)_\w+|up)\{", expression))
