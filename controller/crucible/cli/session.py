"""One session of ``crucible dev``: what is saved is applied, and what comes of it is said."""

from __future__ import annotations

import queue
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from crucible.cli.api import Api
from crucible.cli.apply import send
from crucible.cli.endpoint import endpoint_of
from crucible.cli.exits import lines_of
from crucible.cli.logs import write
from crucible.cli.manifests import read_wanted
from crucible.cli.objects import core
from crucible.cli.reloading import is_settled, notes, revision_of
from crucible.cli.saves import Folder, Saves
from crucible.cli.tailing import Tailing, Target
from crucible.cli.terminal import colourful, one_line, paint
from crucible.cli.waiting import LASTING, wait_until
from crucible.cli.watching import changes
from crucible.errors import CrucibleError, InvalidInput, NotFound, Unavailable
from crucible.manifests.resources import PLUGIN, RESOURCES
from crucible.manifests.wanted import Wanted
from crucible.model.quantity import parse_duration

if TYPE_CHECKING:
    from crucible.cli.private import PrivatePlane
    from crucible.cli.reloading import Note

_BY_DEV: Final = "crucible-dev/folder"
"""Annotation: the folder whose session made this Plugin, so that no session takes over another's."""
_LAST_LINES: Final = 5
_LOOK_AGAIN: Final = 0.5
_MARGIN: Final = 30.0
_LAST_WORDS: Final = 2.0
_COLOURS: Final = {
    "reloaded": "cyan", "ready": "green", "crashed": "red", "stalled": "red", "refused": "red",
    "gone": "yellow",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Saved:
    """Files changed; their names, for people."""

    files: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Became:
    """The Plugin is now so; empty: it is gone."""

    plugin: dict[str, Any]


def read_plugin(manifest: Path, root: Path) -> Wanted:
    """Read and check the manifest, and make it one of a session, whose updates are rolling.

    Raises:
        InvalidManifest: with every violation.
        InvalidInput: it holds anything but one Plugin, or its source lies where nobody watches.
        NotFound: there is no such file.
    """
    everything = read_wanted([str(manifest)], None, "default")
    if [wanted.resource for wanted in everything] != [PLUGIN]:
        found = ", ".join(wanted.label for wanted in everything) or "nothing"
        raise InvalidInput(f"{manifest}: holds {found}: crucible dev runs one Plugin")
    (wanted,) = everything
    spec, meta = wanted.body["spec"], wanted.body["metadata"]
    source = spec["source"].get("path")
    if source is not None and not Path(source).is_relative_to(root):
        raise InvalidInput(
            f"{wanted.place}: spec.source.path: {source} lies outside {root}, where nothing is watched: "
            "run crucible dev on that folder, with -f for the manifest"
        )
    update = spec.get("update") or {}
    verify = {"verify": update["verify"]} if "verify" in update else {}
    annotations = {**(meta.get("annotations") or {}), _BY_DEV: str(root)}
    return wanted.with_body(
        {
            **wanted.body,
            "metadata": {**meta, "annotations": annotations},
            "spec": {**spec, "update": {"strategy": "rolling", **verify}},
        }
    )


class Session:
    """Applies one plugin again and again, and tells its author what becomes of it."""

    def __init__(self, plane: PrivatePlane, folder: Folder, first: Wanted) -> None:
        self._plane = plane
        self._root = folder.root
        self._manifest = folder.manifest
        self._wanted = first
        self._sent = False
        self._inbox: queue.Queue[Saved | Became | CrucibleError] = queue.Queue()
        self._over = threading.Event()
        self._printing = threading.Lock()
        self._saves = Saves(folder)
        self._threads: list[threading.Thread] = []
        self._seen: dict[str, Any] = {}
        self._files: tuple[str, ...] = ()
        self._since = time.monotonic()
        self._settled: float | None = None
        self._announced = ""
        self._quoted = False

    def run(self) -> None:
        """Go on until interrupted.

        Raises:
            InvalidInput: a Plugin of this name is there and no session's of this folder.
            Unavailable: the control plane went away.
        """
        with Api(endpoint_of(self._plane.access)) as api:
            self._claim(api, self._wanted)
            self._begin(self._watch_files)
            self._send(api, self._wanted, ())
            self._begin(self._watch_plugin)
            self._begin(self._print_output)
            while True:
                self._take(api)

    def clean_up(self) -> None:
        """Stop the plugin, delete it and wait until it is gone.

        Raises:
            Failed: it is not, in time; the state folder is kept then.
        """
        self._over.set()
        if not self._sent:
            return
        wanted = self._wanted
        self._say("gone", f"stopping {wanted.name}")
        try:
            self._plane.ensure()
            with Api(endpoint_of(self._plane.access)) as api:
                grace = parse_duration(str(wanted.body["spec"].get("stopGrace", "10s")))
                _delete(api, wanted, grace + _MARGIN)
        except CrucibleError:
            self._plane.keep()
            raise
        for thread in self._threads:
            thread.join(_LAST_WORDS)
        self._say("gone", f"{wanted.name} is deleted, with all that was made for it")

    def _claim(self, api: Api, wanted: Wanted) -> None:
        """Refuse to take over, and to delete in the end, what someone else made; make its namespace."""
        try:
            found = api.get(wanted.path)
        except NotFound:
            found = None
        if found and (found["metadata"].get("annotations") or {}).get(_BY_DEV) != str(self._root):
            raise InvalidInput(
                f"{wanted.label} is there already, and crucible dev of {self._root} did not make it: "
                "delete it, or leave out --state"
            )
        if self._plane.own and wanted.namespace != "default":
            space = RESOURCES[0]
            body = {
                "apiVersion": space.api_version,
                "kind": space.kind,
                "metadata": {"name": wanted.namespace},
            }
            send(api, Wanted(space, "", wanted.namespace, body, wanted.place), {})

    def _take(self, api: Api) -> None:
        """Take one message, or notice that a version has been ready for long enough to say so."""
        wait = None if self._settled is None else max(self._settled + LASTING - time.monotonic(), 0.0)
        try:
            message = self._inbox.get(timeout=wait)
        except queue.Empty:
            took = (self._settled or self._since) - self._since
            self._settled, self._announced = None, revision_of(self._seen)
            self._say("ready", f"revision {self._announced[:8]} in {took:.1f} s")
            return
        match message:
            case Saved(files=files):
                self._reload(api, files)
            case Became(plugin=plugin):
                self._follow(api, plugin)
            case CrucibleError():
                raise message

    def _reload(self, api: Api, files: tuple[str, ...]) -> None:
        if not self._root.is_dir():
            self._say(
                "gone", f"{self._root} is gone: what ran before goes on; put it back, or end with Ctrl-C"
            )
            return
        try:
            wanted = read_plugin(self._manifest, self._root)
            if wanted.path != self._wanted.path:
                raise InvalidInput(
                    f"{wanted.place}: the plugin was {self._wanted.label}: end this session to rename it"
                )
            self._send(api, wanted, files)
        except Unavailable:
            raise
        except CrucibleError as error:
            for line in lines_of(error):
                self._say("refused", f"{line}; what ran before goes on")

    def _send(self, api: Api, wanted: Wanted, files: tuple[str, ...]) -> None:
        if self._sent and wanted.body == self._wanted.body:
            return
        self._files, self._since = files, time.monotonic()
        self._wanted, self._sent = wanted, True  # from here on there may be something to delete
        send(api, wanted, {})

    def _follow(self, api: Api, plugin: dict[str, Any]) -> None:
        if not plugin:
            self._seen, self._settled, self._announced, self._sent = {}, None, "", False
            self._say("gone", "somebody deleted the plugin: the next save makes it again")
            return
        for note in notes(self._seen, plugin):
            self._tell(api, note)
        self._seen = plugin
        fresh = is_settled(plugin) and revision_of(plugin) != self._announced
        self._settled = (self._settled or time.monotonic()) if fresh else None

    def _tell(self, api: Api, note: Note) -> None:
        changed = f" ({', '.join(self._files)})" if note.kind == "reloaded" and self._files else ""
        self._say(note.kind, note.text + changed)
        if note.kind == "reloaded":
            self._quoted = False
        if note.instance and not self._quoted:  # what follows is most often the same again
            self._quoted = True
            for line in _last_lines(api, self._wanted.namespace, note.instance):
                self._write("  | ", line)

    def _say(self, kind: str, text: str) -> None:
        with self._printing:
            print(f"{paint(f'{kind}:', _COLOURS[kind], on=colourful())} {one_line(text)}", flush=True)

    def _write(self, label: str, line: bytes) -> None:
        with self._printing:  # lines of two threads would run into each other
            write(label, line)

    def _begin(self, work: Any) -> None:  # noqa: ANN401 - a method of this class
        self._threads.append(threading.Thread(target=work, name=work.__name__, daemon=True))
        self._threads[-1].start()

    def _watch_files(self) -> None:
        for files in self._saves.watch(self._over):
            self._inbox.put(Saved(files))

    def _watch_plugin(self) -> None:
        where = PLUGIN.collection(self._wanted.namespace)
        try:
            with Api(endpoint_of(self._plane.access)) as api:
                for change in changes(api, where, {"fieldSelector": f"metadata.name={self._wanted.name}"}):
                    self._inbox.put(Became({} if change.kind == "DELETED" else change.object))
        except CrucibleError as error:
            self._inbox.put(error)

    def _print_output(self) -> None:
        """Print what every instance writes; begin anew when the plugin was deleted and came back."""
        target = Target(self._wanted.namespace, self._wanted.name)
        try:
            with Api(endpoint_of(self._plane.access)) as api:
                while not self._over.wait(_LOOK_AGAIN):
                    Tailing(api, target).run(-1, self._write, named=True)
        except CrucibleError as error:
            self._inbox.put(error)


def _last_lines(api: Api, namespace: str, instance: str) -> list[bytes]:
    """Return the end of what an instance wrote; nothing where it is cleared away already."""
    path = f"{core(namespace, 'pods')}/{instance}/log"
    try:
        with api.stream(path, {"tailLines": str(_LAST_LINES)}, endless=False) as lines:
            return list(lines)
    except NotFound:
        return []


def _delete(api: Api, wanted: Wanted, limit: float) -> None:
    def gone() -> bool:
        try:
            api.get(wanted.path)
        except NotFound:
            return True
        return False

    try:
        api.delete(wanted.path)
    except NotFound:
        return
    wait_until(gone, limit, lambda: f"{wanted.label} is not gone yet")
