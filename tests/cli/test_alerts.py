"""A real control plane tells a real receiver what is wrong, and when it is over."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any

from aiohttp import web
from plane import PLUGINS, Plane, manifest, until

if TYPE_CHECKING:
    from pathlib import Path


async def test_a_plugin_that_is_given_up_is_told_and_its_end_too(tmp_path: Path) -> None:
    taken: list[dict[str, Any]] = []

    async def take(request: web.Request) -> web.Response:
        told = await request.json()
        taken.extend(alert for alert in told if alert["labels"].get("plugin") == "ends")  # not of a full disk
        return web.Response()

    application = web.Application()
    application.router.add_post("/secret-path/api/v2/alerts", take)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    port = runner.addresses[0][1]
    config = tmp_path / "alerts.yaml"
    config.write_text(f"url: http://user:hunter2@127.0.0.1:{port}/secret-path\nlabels: {{host: here}}\n")
    plane = Plane(tmp_path / "state", "--alerts", str(config))
    plane.start()
    try:
        await plane.ready()
        async with plane.client() as client:
            await client.create(
                PLUGINS, manifest("ends", "raise SystemExit(3)\n", recovery={"maxRestarts": 0})
            )
        await until(lambda: bool(taken), why=plane.log)
        labels = taken[0]["labels"]
        assert (labels["alertname"], labels["plugin"], labels["host"]) == (
            "CruciblePluginsQuarantined",
            "ends",
            "here",
        )
        plane.end(signal.SIGKILL)
        begun, taken[:] = taken[0]["startsAt"], []
        plane.start()
        await plane.ready()
        await until(lambda: bool(taken), why=plane.log)
        assert (taken[0]["labels"], taken[0]["startsAt"]) == (labels, begun)
        async with plane.client() as client:
            await client.delete(f"{PLUGINS}/ends")
        await until(lambda: taken[-1]["endsAt"] < taken[0]["endsAt"], why=plane.log)
        assert plane.end() == 0
        assert "hunter2" not in plane.log()
        assert "secret-path" not in plane.log()
    finally:
        plane.end(signal.SIGKILL)
        await runner.cleanup()


def test_what_is_no_receiver_is_refused_before_anything_starts(crucible: Any, tmp_path: Path) -> None:
    for wrong, words in (("ftp://user:hunter2@a", "has to be http"), ("none.yaml", "no such file")):
        ended = crucible("up", "--state", str(tmp_path / "state"), "--alerts", wrong)
        assert ended.code in {3, 4}
        assert words in ended.err
        assert "hunter2" not in ended.err
    assert not (tmp_path / "state").exists()
