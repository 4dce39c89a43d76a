"""What pods use: whether the cluster tells it, and how that is read."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from crucible.errors import InvalidInput, NotFound, Unavailable
from crucible.runtimes.kubernetes.enforcement import capabilities
from crucible.runtimes.kubernetes.metering import Metering, amount, usage_of
from crucible.runtimes.kubernetes.settings import KubernetesSettings

if TYPE_CHECKING:
    from collections.abc import Mapping

    from crucible.errors import CrucibleError

API = "/apis/metrics.k8s.io/v1beta1"
NOBODY = f"{API}/namespaces/default/pods/crucible-nobody"


def metrics(cpu: str = "250m", memory: str = "10Mi", name: str = "plugin") -> dict[str, Any]:
    return {"containers": [{"name": name, "usage": {"cpu": cpu, "memory": memory}}]}


class Server:
    """Answers what it was told to, and keeps what it was asked."""

    def __init__(self, answers: Mapping[str, Any]) -> None:
        self.answers = dict(answers)
        self.asked: list[str] = []

    async def get(self, path: str, params: Mapping[str, str] | None = None) -> dict[str, Any]:
        del params
        self.asked.append(path)
        found = self.answers.get(path, NotFound(f'"{path.rpartition("/")[2]}" not found'))
        if isinstance(found, Exception):
            raise found
        return dict(found)


def metering(server: Server, now: list[float] | None = None) -> Metering:
    clock = now or [100.0]
    return Metering(server, (), lambda: clock[0])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("answers", "lack"),
    [
        ({API: {}}, ""),
        ({}, "the cluster serves no metrics.k8s.io: install metrics-server"),
        ({API: Unavailable("503")}, "the cluster's metrics API does not answer: look at its metrics-server"),
        (
            {API: {}, NOBODY: InvalidInput("no")},
            "the operator may not read metrics: no; see the chart's rbac",
        ),
    ],
)
async def test_what_is_missing_is_named(answers: dict[str, CrucibleError], lack: str) -> None:
    meter = metering(Server(answers))
    await meter.look()
    assert meter.lack == lack
    here = capabilities(KubernetesSettings(), meter.lack)
    assert ({"resource", "custom"} <= here.probes) is not bool(lack)
    assert dict(here.lacks).get("resource", "") == lack


async def test_a_pod_is_asked_about_once_in_a_while_however_often_it_is_wanted() -> None:
    place, now = f"{API}/namespaces/default/pods/p-0-1", [100.0]
    server = Server({place: metrics()})
    meter = metering(server, now)
    for _ in range(3):
        used = await meter.usage("default", "p-0-1")
        assert (used.cores, used.memory) == (0.25, 10 << 20)
    assert server.asked == [place]
    now[0] = 106.0
    await meter.usage("default", "p-0-1")
    now[0] = 50.0  # the clock was put back
    await meter.usage("default", "p-0-1")
    assert len(server.asked) == 3


@pytest.mark.parametrize(
    "said", [NotFound("none"), Unavailable("gone"), InvalidInput("no"), metrics(name="x")]
)
async def test_what_nobody_tells_says_nothing_of_the_plugin(said: object) -> None:
    meter = metering(Server({f"{API}/namespaces/default/pods/p-0-1": said}))
    with pytest.raises(Unavailable):
        await meter.usage("default", "p-0-1")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("3476104n", Decimal("0.003476104")),
        ("12u", Decimal("0.000012")),
        ("250m", Decimal("0.25")),
        ("2", 2),
        ("25392Ki", 25392 << 10),
        ("1Gi", 1 << 30),
        ("5M", 5_000_000),
        ("0", 0),
    ],
)
def test_quantities_are_read(text: str, expected: Decimal) -> None:
    assert amount(text) == expected


@pytest.mark.parametrize("text", ["", "n", "1 Ki", "1Xi", "1mm", "--1"])
def test_what_is_no_quantity_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no quantity"):
        amount(text)
    with pytest.raises(Unavailable):
        usage_of(metrics(cpu=text), 0.0)
