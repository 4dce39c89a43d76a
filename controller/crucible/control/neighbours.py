"""Who needs whom among the Plugins of a namespace, as they were last seen."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from crucible.model.neighbour import Around, Neighbour

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_FARTHEST: Final = 1000
"""Plugins looked at for one: a way through more of them is followed no further."""

_Key = tuple[str, str]


class Neighbours:
    """An index of Plugins by namespace and name, and of those that need each."""

    def __init__(self) -> None:
        self._uids: dict[_Key, str] = {}
        self._keys: dict[str, _Key] = {}
        self._known: dict[_Key, Neighbour] = {}
        self._wanted: dict[_Key, frozenset[str]] = {}
        self._needed_by: dict[_Key, set[str]] = {}

    def see(self, plugin: Mapping[str, Any]) -> frozenset[str]:
        """Take in a Plugin as it is now; return the uids of those to whom what is new of it may matter."""
        uid, key = plugin["metadata"]["uid"], _key_of(plugin)
        found = neighbour_of(plugin)
        if self._known.get(key) == found and self._uids.get(key) == uid:
            return frozenset()
        before = self._wanted.get(key, frozenset())
        wanted = frozenset(_named(plugin))
        self._uids[key], self._keys[uid], self._known[key], self._wanted[key] = uid, key, found, wanted
        for name in before - wanted:
            self._needed_by.get((key[0], name), set()).discard(key[1])
        for name in wanted - before:
            self._needed_by.setdefault((key[0], name), set()).add(key[1])
        return self._concerned(key, before | wanted)

    def lose(self, uid: str) -> frozenset[str]:
        """Take in that a Plugin is gone; return the uids of those to whom that may matter."""
        key = self._keys.pop(uid, None)
        if key is None or self._uids.get(key) != uid:
            return frozenset()
        del self._uids[key], self._known[key]
        wanted = self._wanted.pop(key)
        for name in wanted:
            self._needed_by.get((key[0], name), set()).discard(key[1])
        return self._concerned(key, wanted)

    def around(self, uid: str) -> Around:
        """Return what a Plugin needs, whatever that needs in turn, and who needs it."""
        key = self._keys.get(uid)
        if key is None:
            return Around()
        namespace = key[0]
        found: dict[str, Neighbour] = {}
        left = sorted(self._wanted.get(key, ()))
        while left and len(found) < _FARTHEST:
            name = left.pop()
            known = self._known.get((namespace, name))
            if name not in found and known is not None:
                found[name] = known
                left += known.needs
        needed_by = sorted(self._needed_by.get(key, ()))
        return Around(found, tuple(self._known[namespace, name] for name in needed_by))

    def _concerned(self, key: _Key, wanted: Iterable[str]) -> frozenset[str]:
        names = {*self._needed_by.get(key, ()), *wanted} - {key[1]}
        return frozenset(self._uids[key[0], name] for name in names if (key[0], name) in self._uids)


def neighbour_of(plugin: Mapping[str, Any]) -> Neighbour:
    """Return what others have to know of a Plugin; nothing it holds is trusted to have a shape."""
    meta, spec, status = (plugin.get(part) or {} for part in ("metadata", "spec", "status"))
    ready: Mapping[str, Any] = next(
        (each for each in status.get("conditions") or () if each.get("type") == "Ready"), {}
    )
    return Neighbour(
        name=meta["name"],
        version=str(spec.get("version") or ""),
        ready=ready.get("status") == "True",
        message=str(ready.get("message") or "")[:256],
        needs=tuple(sorted(_named(plugin, optional=False))),
        deleting="deletionTimestamp" in meta,
        instances=int(status.get("replicas") or 0),
    )


def _named(plugin: Mapping[str, Any], *, optional: bool = True) -> set[str]:
    wanted = (plugin.get("spec") or {}).get("dependencies")
    return {
        str(each.get("name"))
        for each in (wanted if isinstance(wanted, list) else ())
        if isinstance(each, dict) and (optional or not each.get("optional"))
    }


def _key_of(plugin: Mapping[str, Any]) -> _Key:
    return plugin["metadata"]["namespace"], plugin["metadata"]["name"]
