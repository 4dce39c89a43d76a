"""The bus between real sandboxed plugins: the manifest decides, and from inside nothing else does."""

from __future__ import annotations

import json
import os
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from imagelib import rune
from onlooker import bearing

from crucible.bootstrap import control_plane_id
from crucible.companions import starting

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from crucible.settings import Places

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0, reason="plugins start with every control enforced only where root runs the controller"
)
WIRE = (Path(__file__).parents[1] / "plugins" / "talking" / "wire.py").read_text()
ASKED = """\
import wire
bus = wire.Bus(methods=["split"])
print("ready", flush=True)
while True:
    kind, ident, name, headers, payload = bus.next()
    if name == "$ping":
        bus.send(wire.ANSWER, ident, payload=payload)
    elif kind == wire.CALL:
        bus.send(wire.ANSWER, ident, payload=headers.get("from", "?").encode() + b" said " + payload)
"""
ASKER = """\
import json, os, wire
config = json.load(open(os.environ["CRUCIBLE_CONFIG"]))
bus = wire.Bus()
for number, (kind, name, headers) in enumerate(config["says"]):
    bus.send(kind, 2 * number + 1, name, b"to be", headers)
    kind, ident, name, headers, payload = bus.next()
    print(json.dumps([kind, name, payload.decode()]), flush=True)
print("done", flush=True)
bus.next()
"""
CALL, PUBLISH, SUBSCRIBE = 3, 9, 10
SLOW = """\
import os, pathlib, time, wire
bus = wire.Bus(methods=["work"])
while True:
    kind, ident, name, headers, payload = bus.next()
    print("asked", flush=True)
    while not pathlib.Path("/tmp/go").exists():
        time.sleep(0.01)
    bus.send(wire.ANSWER, ident, payload=b'"%s"' % os.environ["CRUCIBLE_INSTANCE"].encode())
"""
NAMES = ("slow", "asked", "asker", "deaf", "listener", "newcomer")


def manifest(name: str, program: str, capabilities: dict[str, Any], says: list[Any] | None = None) -> Any:
    return {
        "apiVersion": "crucible.dev/v1alpha1",
        "kind": "Plugin",
        "metadata": {"name": name},
        "spec": {
            "version": "1.0.0",
            "type": "python",
            "source": {"inline": {"main.py": program, "wire.py": WIRE}},
            "entrypoint": ["main.py"],
            "config": {"says": says or []},
            "capabilities": capabilities,
        },
    }


@pytest.fixture
def apply(crucible: Any) -> Iterator[Any]:
    def call(*manifests: Any) -> Any:
        return crucible("apply", "-f", "-", stdin=yaml.safe_dump_all(manifests))

    yield call
    crucible("delete", "--ignore-not-found", *NAMES)


def told(crucible: Any, eventually: Callable[..., None], name: str) -> list[Any]:
    """Return what a plugin heard in answer to all that it said."""
    eventually(lambda: "done" in crucible("logs", name).out, lambda: crucible("describe", name))
    return [json.loads(line) for line in crucible("logs", name).out.splitlines() if line.startswith("[")]


def test_a_call_that_is_open_is_finished_before_the_instance_is_stopped(
    crucible: Any, apply: Any, eventually: Any
) -> None:
    slow = manifest("slow", SLOW, {"bus": {}})
    slow["spec"]["lifecycle"] = {"drain": "50s"}
    assert apply(slow).code == 0
    with ThreadPoolExecutor(1) as beside:
        eventually(
            lambda: crucible("call", "slow.nothing").err.find("no method") > 0,
            lambda: crucible("describe", "slow").out,
        )
        call = beside.submit(crucible, "call", "slow.work", "--timeout", "50s")
        eventually(lambda: "asked" in crucible("logs", "slow").out, lambda: crucible("describe", "slow").out)
        crucible("restart", "slow")
        eventually(lambda: "Draining" in crucible("events", "slow").out, lambda: crucible("events", "slow"))
        eventually(
            lambda: "about to be stopped" in crucible("call", "slow.work").err,
            lambda: (call.done() and call.result(), crucible("describe", "slow").out),
        )
        (instance,) = seen(crucible, "slow")["status"]["draining"]
        assert (instance["ordinal"], instance["attempt"]) == (0, 1)
        go = "import pathlib; pathlib.Path('/tmp/go').touch()"
        entered = crucible("exec", "slow", "--", f"python3.{sys.version_info.minor}", "-c", go)
        assert entered.code == 0, entered.err
        answered = call.result(60)
    assert (answered.code, answered.out.strip()) == (0, "slow-0-1"), answered.err
    eventually(
        lambda: seen(crucible, "slow")["status"]["instances"][0]["name"] == "slow-0-2",
        lambda: crucible("describe", "slow").out,
    )


LEARNING = """\
from crucible_plugin import Plugin
plugin = Plugin()
print(plugin.config["greeting"], flush=True)

@plugin.on_config
def changed(config):
    if config["greeting"] == "rude":
        raise ValueError("not that")
    print(config["greeting"], flush=True)

plugin.run()
"""


def test_a_new_configuration_is_taken_on_the_bus_or_the_plugin_replaced(
    crucible: Any, apply: Any, eventually: Any
) -> None:
    def greet(word: str) -> None:
        slow = manifest("slow", LEARNING, {"bus": {}})
        slow["spec"] |= {"config": {"greeting": word}, "configDelivery": "bus"}
        assert apply(slow).code == 0
        eventually(
            lambda: crucible("logs", "slow", "--tail", "1").out == f"{word}\n",
            lambda: (crucible("logs", "slow"), crucible("events", "slow").out),
        )

    greet("hello")
    before = seen(crucible, "slow")["status"]["instances"][0]
    greet("goodbye")
    assert crucible("logs", "slow").out == "hello\ngoodbye\n"
    assert seen(crucible, "slow")["status"]["instances"][0]["pid"] == before["pid"]
    greet("rude")
    assert crucible("logs", "slow", "--instance", "slow-0-2").out == "rude\n"
    assert "did not take its new configuration, and is replaced: Failed" in crucible("events", "slow").out
    assert seen(crucible, "slow")["status"]["restarts"] == 0


def test_a_plugin_does_on_the_bus_what_its_manifest_grants_and_nothing_more(
    crucible: Any, apply: Any, eventually: Any
) -> None:
    says = [
        (CALL, "asked.split", {}),
        (CALL, "asked.join", {}),
        (CALL, "deaf.split", {}),
        (CALL, "other.split", {}),
        (PUBLISH, "notes.saved", {}),
        (PUBLISH, "other", {}),
        (SUBSCRIBE, "notes.*", {}),
        (SUBSCRIBE, ">", {}),
        (CALL, "$store.put", {"key": "a"}),
        (CALL, "$store.get", {"key": "a"}),
    ]
    bus = {"call": ["asked.*", "deaf.split"], "publish": ["notes.*"], "subscribe": ["notes.>"]}
    capabilities = {"bus": bus, "store": {"size": "1Ki", "onDelete": "remove"}}
    asked = manifest("asked", ASKED, {"bus": {}})
    asked["spec"]["health"] = {"ready": {"ping": {}, "interval": "200ms"}}
    apply(asked, manifest("deaf", "input()", {}))
    eventually(
        lambda: seen(crucible, "asked").get("status", {}).get("readyReplicas") == 1,
        lambda: crucible("describe", "asked").out,
    )
    applied = apply(manifest("asker", ASKER, capabilities, says))
    assert applied.code == 0, applied.err
    heard = told(crucible, eventually, "asker")
    assert [(kind, name) for kind, name, _ in heard] == [
        (4, ""),
        (5, "NoSuchMethod"),
        (5, "Unavailable"),
        (5, "NotPermitted"),
        (4, ""),
        (5, "NotPermitted"),
        (4, ""),
        (5, "NotPermitted"),
        (4, ""),
        (4, ""),
    ]
    assert (heard[0][2], heard[9][2]) == ("asker said to be", "to be")
    assert "spec.capabilities.bus: {}" in heard[2][2]
    eventually(
        lambda: "the bus refused what the manifest does not grant" in crucible("describe", "asker").out,
        lambda: crucible("describe", "asker").out,
    )
    before = seen(crucible)["status"]
    bus["call"] = ["asked.nothing"]
    apply(manifest("asker", ASKER, capabilities, says))
    eventually(
        lambda: seen(crucible)["status"]["observedGeneration"] > before["observedGeneration"],
        lambda: seen(crucible),
    )
    assert seen(crucible)["status"]["instances"] == before["instances"], "new grants restarted it"


def seen(crucible: Any, name: str = "asker") -> dict[str, Any]:
    found: dict[str, Any] = json.loads(crucible("get", name, "-o", "json").out)
    return found


SEALED = {
    "python": (
        "main.py",
        """
import os
from crucible_plugin import Plugin
plugin = Plugin()
print(os.environ["CRUCIBLE_BUS"], flush=True)

@plugin.method()
def say(request):
    return request.payload

plugin.run()
""",
    ),
    "wasm": (
        "main.wat",
        """(module
  (import "crucible" "bus_open" (func $open (param i32 i32 i32) (result i32)))
  (import "crucible" "bus_next" (func $next (param i32) (result i32)))
  (import "crucible" "bus_take" (func $take (param i32 i32 i32) (result i32)))
  (import "crucible" "bus_answer" (func $answer (param i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 16) "say")
  (func (export "_start")
    (if (call $open (i32.const 16) (i32.const 3) (i32.const 0)) (then unreachable))
    (loop $forever
      (if (i32.eq (call $next (i32.const -1)) (i32.const 1))
        (then (drop (call $answer
          (i32.const 4096) (call $take (i32.const 0) (i32.const 4096) (i32.const 4096))))))
      (br $forever))))""",
    ),
    "rune": (
        "main.rn",
        """
pub fn main() {
    crucible::open(["say"])?;
    loop {
        match crucible::next(60.0)? {
            Some(event) if event.kind == "call" => crucible::answer(event.payload)?,
            Some(event) if event.kind == "stop" => return Ok(0),
            _ => (),
        }
    }
}
""",
    ),
}


@pytest.mark.parametrize("language", SEALED)
def test_a_plugin_whose_own_hop_is_encrypted_is_called_and_after_the_broker_died_again(
    crucible: Any, places: Places, apply: Any, eventually: Any, language: str
) -> None:
    name, program = SEALED[language]
    sealed = manifest("asked", program, {"bus": {"encryptLocal": True}})
    sealed["spec"] |= {"type": language, "entrypoint": [name]}
    sealed["spec"]["source"]["inline"] = {name: program}
    applied = apply(sealed)
    assert applied.code == 0, applied.err
    for _ in range(2):
        eventually(
            lambda: crucible("call", "asked.say", '"heard"').out == "heard\n",
            lambda: (crucible("call", "asked.say", '"heard"'), crucible("logs", "asked").out),
        )
        (broker,) = brokers(places)
        os.kill(broker, signal.SIGKILL)
    if language == "python":
        assert crucible("logs", "asked").out == "tls:///run/crucible/bus.sock\n"


def brokers(places: Places) -> list[int]:
    """Return the process of this control plane's broker."""
    mark = starting.Program("bus", (), places.bus, control_plane_id(places.root / "id")).mark.encode()
    return bearing(mark)


LISTENERS = {
    "python": ("main.py", ASKER.replace("\nbus.next()\n", "\nwhile True: print(bus.next(), flush=True)\n")),
    "rune": (
        "main.rn",
        """
pub fn main() {
    crucible::open([])?;
    crucible::subscribe("crucible.events.>")?;
    println!("done");
    while let Some(event) = crucible::next(600.0)? {
        if event.kind == "stop" { return Ok(0); }
        println!("{} {} {}", event.from, event.name, event.payload["type"]);
    }
}
""",
    ),
    "wasm": (
        "main.wat",
        """(module
  (import "crucible" "bus_open" (func $open (param i32 i32 i32) (result i32)))
  (import "crucible" "bus_subscribe" (func $subscribe (param i32 i32) (result i32)))
  (import "crucible" "bus_next" (func $next (param i32) (result i32)))
  (import "crucible" "bus_take" (func $take (param i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 16) "crucible.events.>")
  (data (i32.const 48) "done\\0a")
  (func $print (param $at i32) (param $size i32)
    (i32.store (i32.const 0) (local.get $at))
    (i32.store (i32.const 4) (local.get $size))
    (drop (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8))))
  (func $piece (param $which i32)
    (call $print (i32.const 4096) (call $take (local.get $which) (i32.const 4096) (i32.const 4096)))
    (call $print (i32.const 52) (i32.const 1)))
  (func (export "_start")
    (if (call $open (i32.const 0) (i32.const 0) (i32.const 0)) (then unreachable))
    (if (call $subscribe (i32.const 16) (i32.const 17)) (then unreachable))
    (call $print (i32.const 48) (i32.const 5))
    (loop $forever
      (if (i32.eq (call $next (i32.const -1)) (i32.const 2))
        (then (call $piece (i32.const 2)) (call $piece (i32.const 1)) (call $piece (i32.const 0))))
      (br $forever))))""",
    ),
}


@pytest.mark.parametrize("language", LISTENERS)
def test_the_controllers_events_are_heard_on_the_bus(
    crucible: Any, apply: Any, eventually: Any, language: str
) -> None:
    if language == "rune":
        rune.build(print)
    name, program = LISTENERS[language]
    capabilities = {"bus": {"subscribe": ["crucible.events.>"]}}
    listener = manifest("listener", program, capabilities, [(SUBSCRIBE, "crucible.events.>", {})])
    listener["spec"] |= {"type": language, "entrypoint": [name]}
    listener["spec"]["source"]["inline"][name] = listener["spec"]["source"]["inline"].pop("main.py")
    applied = apply(listener)
    assert applied.code == 0, applied.err
    eventually(lambda: "done" in crucible("logs", "listener").out, lambda: crucible("describe", "listener"))
    apply(manifest("newcomer", ASKED, {"bus": {}}))
    eventually(
        lambda: "crucible.events.newcomer.Started" in crucible("logs", "listener").out,
        lambda: crucible("logs", "listener").out,
    )
    assert "dev.crucible.plugin.Started" in crucible("logs", "listener").out
