"""Shows the product at work on this machine, and ends with 0 only if all of it really happened.

A control plane of its own, in a temporary folder: plugins of three types, one killed, one that leaks, one
that tries to break out; then everything is deleted, and the machine is searched for what may be left. Nothing
here waits by sleeping: a scene ends when the control plane's records say so, or fails at its deadline.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from demo_plugins import attempts_of, built, is_running, phase, rewritten
from demo_stage import NotSeen, Stage, leftovers, stage

from crucible.breakout.bait import bait
from crucible.breakout.trial import forbidden_calls
from crucible.cli.objects import collection, condition, moment, replicas_of
from crucible.cli.rows import heading, plugin_row
from crucible.cli.table import table
from crucible.cli.terminal import colourful, harmless, paint
from crucible.errors import CrucibleError

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ("python", "javascript", "binary")
SECONDS = 60.0
ATTEMPTS = 50


@dataclass(slots=True)
class Show:
    """Prints scenes, and keeps what was proved."""

    proved: list[str] = field(default_factory=list)
    began: float = field(default_factory=time.monotonic)

    def scene(self, title: str) -> None:
        """Begin a scene."""
        clock = f"{time.monotonic() - self.began:5.1f} s"
        print(f"\n{paint(clock, 'dim', on=colourful())}  {paint(title, 'bold', on=colourful())}", flush=True)

    def say(self, text: str) -> None:
        """Say something that is no proof."""
        print(f"         {harmless(text)}", flush=True)

    def prove(self, what: str, holds: bool, otherwise: object = "") -> None:
        """Note that something really happened.

        Raises:
            NotSeen: it did not.
        """
        if not holds:
            raise NotSeen(f"not so: {what}; {otherwise}")
        self.proved.append(what)
        print(f"       {paint('✓', 'green', on=colourful())} {harmless(what)}", flush=True)


def main() -> int:
    """Run every scene; 0 when all of it happened."""
    show = Show()
    try:
        with stage() as on:
            whole(show, on)
    except (NotSeen, CrucibleError) as error:
        print(f"\n{paint('The demonstration failed', 'red', on=colourful())}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ninterrupted; everything of it was stopped", file=sys.stderr)
        return 130
    seconds = time.monotonic() - show.began
    show.scene(f"All of it happened: {len(show.proved)} things proved in {seconds:.0f} s.")
    return 0


def whole(show: Show, on: Stage) -> None:
    """Play every scene; whatever happens, leave no plugin behind."""
    show.scene("A control plane on this machine: crucible up")
    show.prove(f"it is ready, for {who()}", holds=on.process.poll() is None)
    try:
        accepted = start_plugins(show, on)
        kill_one(show, on)
        leak(show, on, accepted)
        break_out(show, on, accepted)
    finally:
        on.crucible("delete", "--all", "--timeout", "120s")
    clear_away(show, on)


def who() -> str:
    """Say as whom it runs, which decides how much can be enforced."""
    return "root" if os.geteuid() == 0 else "an ordinary user"


def start_plugins(show: Show, on: Stage) -> dict[str, Any]:
    """Apply a plugin of each type; return what their manifests had to accept for them to start."""
    show.scene("Three plugins, one in each language: crucible apply")
    folders = []
    for kind in EXAMPLES:
        folder, what = built(ROOT / "plugin-images" / kind / "example", on.folder)
        folders.append(folder)
        if what:
            show.say(what)
    accepted = consent(show, on, rewritten(on, folders[0]))
    manifests = [rewritten(on, folder, sandbox=accepted) for folder in folders]
    files = [word for path in manifests for word in ("-f", str(path))]
    for line in on.crucible("apply", *files).splitlines():
        show.say(line)
    live(on, len(manifests))
    plugins = on.api.get(collection("default"))["items"]
    running = [
        f"{plugin['metadata']['name']} ({plugin['spec']['type']})" for plugin in plugins if is_running(plugin)
    ]
    show.prove(f"running, each in a sandbox: {', '.join(running)}", holds=len(running) == len(manifests))
    enforced = [
        entry["control"] for entry in plugins[0]["status"]["enforcement"] if entry["level"] == "enforced"
    ]
    show.prove(f"the kernel enforces {len(enforced)} controls: {', '.join(enforced)}", holds=bool(enforced))
    return accepted


def consent(show: Show, on: Stage, manifest: Path) -> dict[str, Any]:
    """Find out what cannot be enforced here. As it is, such a plugin is refused, which is shown."""
    on.crucible("apply", "-f", str(manifest))
    name = manifest.stem
    plugin = on.until(name, lambda found: is_running(found) or phase(found) == "Refused", SECONDS)
    if phase(plugin) != "Refused":
        return {}
    show.prove("refused, because this host cannot enforce all that is promised", holds=True)
    show.say(str(condition(plugin, "Ready").get("message")))
    weak = [e["control"] for e in plugin["status"]["enforcement"] if e["level"] != "enforced"]
    show.say(f"going on with spec.sandbox.allowDegraded: {weak}; as root, on most hosts, nothing is missing")
    return {"allowDegraded": weak}


def live(on: Stage, count: int) -> None:
    """Show the table until all plugins run; on a terminal in place."""
    shown: list[str] = []
    deadline = time.monotonic() + SECONDS
    while True:
        plugins = on.api.get(collection("default"))["items"]
        rows = [plugin_row(plugin, time.time(), wide=False, namespaces=False)[:-1] for plugin in plugins]
        lines = table([heading(wide=False, namespaces=False)[:-1], *rows])
        if lines != shown:
            if shown and colourful():
                print(f"\x1b[{len(shown)}F\x1b[J", end="")
            print("".join(f"         {line}\n" for line in lines), end="", flush=True)
            shown = lines
        if sum(is_running(plugin) for plugin in plugins) == count:
            return
        if time.monotonic() > deadline:
            raise NotSeen(f"not all plugins run after {SECONDS:g} s")
        time.sleep(0.05)


def kill_one(show: Show, on: Stage) -> None:
    """Kill a plugin's process from outside, and measure how long it takes to run again."""
    show.scene("One of them is killed: kill -9")
    (before,) = replicas_of(on.plugin("word-count"))
    killed = time.time()
    os.kill(before["pid"], signal.SIGKILL)
    plugin = on.until(
        "word-count",
        lambda found: is_running(found) and replicas_of(found)[0]["attempt"] > before["attempt"],
        SECONDS,
    )
    seen = time.time()
    (after,) = replicas_of(plugin)
    started = (moment(after["startedAt"]) or seen) - killed
    show.prove(
        f"process {before['pid']} was ended by signal {after['lastExit'].get('signal')}, says the record",
        holds=after["lastExit"].get("signal") == signal.SIGKILL and after["pid"] != before["pid"],
        otherwise=after,
    )
    show.prove(
        f"recovered: sandboxed again after {started * 1000:.0f} ms, reported running after "
        f"{(seen - killed) * 1000:.0f} ms, as process {after['pid']}",
        holds=after["restarts"] == before["restarts"] + 1 and Path(f"/proc/{after['pid']}").exists(),
        otherwise=after,
    )


def leak(show: Show, on: Stage, accepted: dict[str, Any]) -> None:
    """Let a plugin grow beyond its memory limit."""
    show.scene("One that leaks: it may have 48 MiB")
    path = rewritten(on, ROOT / "tests" / "plugins" / "leaking", sandbox=accepted)
    on.crucible("apply", "-f", str(path))
    plugin = on.until(
        "leaking",
        lambda found: phase(found) == "BackOff" and bool(replicas_of(found)[0].get("nextStart")),
        SECONDS,
    )
    (replica,) = replicas_of(plugin)
    last = replica["lastExit"]
    if "memory" in accepted.get("allowDegraded", ()):
        show.prove(f"contained by its own limit: it {last['message']}", holds=last["reason"] == "Crashed")
    else:
        show.prove(
            f"{last['reason']}: it {last['message']}", holds=last["reason"] == "OOMKilled", otherwise=last
        )
    wait = (moment(replica["nextStart"]) or 0.0) - (moment(last["at"]) or 0.0)
    crashes = len(replica["crashes"])
    show.prove(
        f"BackOff: crash {crashes}, started again {wait:.2f} s later, longer after each",
        holds=crashes > 1 and wait > 0,
        otherwise=replica,
    )
    again = on.until(
        "leaking", lambda found: replicas_of(found)[0]["restarts"] > replica["restarts"], SECONDS
    )
    show.prove(
        "started again when its time had come", holds=replicas_of(again)[0]["attempt"] > replica["attempt"]
    )
    others = [
        found["metadata"]["name"] for found in on.api.get(collection("default"))["items"] if is_running(found)
    ]
    show.prove(
        f"the others did not notice: {', '.join(sorted(set(others) - {'leaking'}))} run", len(others) > 1
    )


def break_out(show: Show, on: Stage, accepted: dict[str, Any]) -> None:
    """Let a plugin try everything to get out, with bait laid out on the host."""
    show.scene("One that is hostile: it tries to get out")
    with bait(on.folder) as laid:
        show.say(
            f"laid out on the host, and reachable from it: {laid.file}, 127.0.0.1:{laid.port}, two sockets"
        )
        config = {
            "hostFiles": [str(laid.file), str(on.places.kubeconfig), "/etc/shadow"],
            "hostPort": laid.port,
            "hostSocket": laid.socket,
            "calls": forbidden_calls(),
        }
        path = rewritten(on, ROOT / "tests" / "plugins" / "hostile", sandbox=accepted, config=config)
        on.crucible("apply", "-f", str(path), "--wait")
        attempts = attempts_of(on)
        for attempt in attempts:
            mark = (
                paint("denied", "green", on=colourful())
                if attempt["denied"]
                else paint("SUCCEEDED", "red", on=True)
            )
            print(
                f"         {mark}  {harmless(attempt['attempt'])}: {harmless(attempt['detail'])}", flush=True
            )
        got = [attempt["attempt"] for attempt in attempts if not attempt["denied"] or not attempt["allowed"]]
        show.prove(
            f"{len(attempts)} of {len(attempts)} attempts were denied",
            holds=not got and len(attempts) > ATTEMPTS,
            otherwise=got,
        )
        show.prove(
            "nobody came to the host's loopback or sockets", holds=not laid.visitors, otherwise=laid.visitors
        )
    plugin = on.plugin("hostile")
    show.prove(
        "it still runs, contained, and never restarted",
        is_running(plugin) and not plugin["status"]["restarts"],
    )


def clear_away(show: Show, on: Stage) -> None:
    """Search the machine for what is left, stop the control plane, and search again."""
    show.scene("Everything is deleted: crucible delete --all")
    identity = (on.places.root / "id").read_text().strip()
    show.prove("no plugin is left", holds=on.api.get(collection("default"))["items"] == [])
    deadline = time.monotonic() + SECONDS
    while (left := leftovers(identity, on.places)) and time.monotonic() < deadline:
        time.sleep(0.05)
    show.prove("no process, cgroup, mount, instance or snapshot is left", holds=not left, otherwise=left)
    on.process.send_signal(signal.SIGTERM)
    show.prove("the control plane ended by itself, with 0", holds=on.process.wait(SECONDS) == 0)
    left = leftovers(identity, on.places, stopped=True)
    show.prove("and left nothing behind", holds=not left, otherwise=left)


if __name__ == "__main__":
    sys.exit(main())
