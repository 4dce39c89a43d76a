"""docs/sdk.md says of each language what is there, and leaves nothing out."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import crucible_plugin
import crucible_plugin.aio
from crucible.hosts.wasm_bus.functions import FUNCTIONS, NUMBERS
from crucible_plugin.aio.events import Events as AsyncEvents
from crucible_plugin.aio.store import Store as AsyncStore
from crucible_plugin.calls import Asked
from crucible_plugin.events import Events

if TYPE_CHECKING:
    from collections.abc import Iterable

ROOT = Path(__file__).resolve().parents[3]
LANGUAGES = ("Python", "asyncio", "JavaScript", "WebAssembly", "Rune")
# What the SDKs' own parts ask of each other, and nobody who writes a plugin does.
INNER = {
    *("exchange", "receive", "connect", "connected", "welcomed", "lost", "hello", "send", "finished"),
    *("log", "store", "surroundings"),
}


def told() -> dict[str, set[str]]:
    """Return the names in each column."""
    rows = [line for line in (ROOT / "docs/sdk.md").read_text().splitlines() if line.startswith("| ")]
    head, *body = (line.strip("|").split("|") for line in rows)
    assert [cell.strip() for cell in head[1:]] == list(LANGUAGES)
    return {
        language: {name for row in body for name in re.findall(r"`([\w.]+)`", row[column])}
        for column, language in enumerate(LANGUAGES, 1)
    }


def public(kind: type, prefix: str = "") -> set[str]:
    """Return the public names of a class, with those that its __init__ sets."""
    return {f"{prefix}{name}" for name in dir(kind) if not name.startswith("_")}


def python() -> dict[str, set[str]]:
    """Return what there is in both SDKs for Python; attributes are known by their class's documentation."""
    shared = {
        *(f"Request.{name}" for name in documented(Asked) | public(Asked)),
        *(f"Message.{name}" for name in documented(crucible_plugin.Message)),
        *public(crucible_plugin.Log, "Log."),
        *public(crucible_plugin.BusError, "BusError."),
        "Stream.result",
        "config",
    }
    threads = shared | public(crucible_plugin.Plugin) | public(Events, "Events.")
    threads |= public(crucible_plugin.Request, "Request.") | public(crucible_plugin.Stream, "Stream.")
    tasks = shared | public(crucible_plugin.aio.Plugin) | public(AsyncEvents, "Events.")
    tasks |= public(crucible_plugin.aio.Request, "Request.") | public(crucible_plugin.aio.Stream, "Stream.")
    return {
        "Python": threads | public(crucible_plugin.Store, "Store."),
        "asyncio": tasks | public(AsyncStore, "Store."),
    }


def documented(kind: type) -> set[str]:
    return set(re.findall(r"^\s{4,8}(\w+): ", kind.__doc__ or "", re.MULTILINE))


def javascript() -> set[str]:
    """Return what the types for TypeScript declare."""
    text = (ROOT / "plugin-images/javascript/sdk/crucible-plugin/index.d.ts").read_text()
    found = set()
    for name, body in re.findall(
        r"export (?:class|interface) (\w+)[^{]*\{(.*?)^\}", text, re.DOTALL | re.MULTILINE
    ):
        members = re.findall(r"^  (?:readonly )?(\w+)\??[:(<]", body, re.MULTILINE)
        found |= {member if name == "Plugin" else f"{name}.{member}" for member in members}
    return found - {"constructor"}


def rune() -> set[str]:
    """Return what the host lends scripts of the bus, and how it waits and is configured."""
    sources = ROOT / "plugin-images/rune/host/src"
    named = r'\.function\(\s*"(\w+)"'
    talk = {
        name for file in ("talk.rs", "kept.rs") for name in re.findall(named, (sources / file).read_text())
    }
    return talk | {"wait", "config"} & set(re.findall(named, (sources / "library.rs").read_text()))


def there() -> dict[str, set[str]]:
    return {**python(), "JavaScript": javascript(), "WebAssembly": {*FUNCTIONS, *NUMBERS}, "Rune": rune()}


@pytest.mark.parametrize("language", LANGUAGES)
def test_what_it_names_is_there(language: str) -> None:
    assert told()[language] - there()[language] == set()


def outermost(names: Iterable[str]) -> set[str]:
    """Return the names that authors of plugins use: the Plugin's own, the store's, the events', the log's."""
    kinds = ("Store.", "Events.", "Log.")
    return {
        name
        for name in names
        if ("." not in name or name.startswith(kinds)) and name.rpartition(".")[2] not in INNER
    }


@pytest.mark.parametrize("language", LANGUAGES)
def test_what_is_there_is_named(language: str) -> None:
    assert outermost(there()[language]) - told()[language] == set()


def test_rows_leave_no_language_out() -> None:
    rows = [line for line in (ROOT / "docs/sdk.md").read_text().splitlines() if line.startswith("| ")]
    for row in rows[1:]:
        assert all(cell.strip() for cell in row.strip("|").split("|")), row
