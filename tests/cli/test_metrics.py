"""One reason, told in every way there is: a condition, an event, a metric and a line of the log."""

from __future__ import annotations

import json
import ssl
import urllib.request
from typing import TYPE_CHECKING, Any

from crucible.control.kubeconfig import load_endpoint

if TYPE_CHECKING:
    from collections.abc import Callable

    from crucible.settings import Places


def counted(places: Places) -> dict[str, str]:
    """Return the metrics as Prometheus would scrape them."""
    endpoint = load_endpoint(places.kubeconfig)
    request = urllib.request.Request(  # noqa: S310 - ours
        f"{endpoint.server}/metrics", headers={"Authorization": f"Bearer {endpoint.token}"}
    )
    context = ssl.create_default_context(cadata=endpoint.ca)
    with urllib.request.urlopen(request, context=context, timeout=60) as answer:  # noqa: S310 - the same
        assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
        lines: list[str] = answer.read().decode().splitlines()
    return dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))


def test_a_crash_loop_is_told_everywhere_by_one_reason(
    crucible: Any, places: Places, manifest: Any, eventually: Callable[..., None]
) -> None:
    name = 'crucible_condition_transitions_total{condition="Stalled",status="True",reason="CrashLoop"}'
    before = int(counted(places).get(name, "0"))
    path = manifest("raise SystemExit(7)", "looping", recovery={"maxRestarts": 1, "strategy": ["quarantine"]})
    assert crucible("apply", "-f", path).code == 0

    def conditions() -> list[dict[str, Any]]:
        found = json.loads(crucible("get", "looping", "-o", "json").out)
        return list(found.get("status", {}).get("conditions", []))

    def stalled() -> bool:
        return any(each["type"] == "Stalled" and each["reason"] == "CrashLoop" for each in conditions())

    eventually(stalled, conditions)
    eventually(lambda: "CrashLoop" in crucible("events").out, lambda: crucible("events").out)
    assert int(counted(places)[name]) == before + 1
    log = (places.root.parent / "up.log").read_text()
    assert "default/looping: CrashLoop (Ready=False, " in log
