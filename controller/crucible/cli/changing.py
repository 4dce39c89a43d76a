"""Changing one thing of some plugins' specs, and waiting for what follows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from crucible.cli.exits import WrongUsage
from crucible.cli.objects import plugin_path
from crucible.cli.waiting import LASTING, is_ready, unready, wait_until
from crucible.manifests.resources import PLUGIN

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from crucible.cli.api import Api


def change_each(
    api: Api, namespace: str, plugins: Sequence[str] | None, spec: Mapping[str, Any], done: str
) -> dict[str, str]:
    """Set fields of the specs of plugins; those that have them already are left alone.

    Args:
        api: the control plane.
        namespace: of the plugins.
        plugins: their names; all have to be there before any is changed.
        spec: the fields.
        done: what to print of a plugin that was changed.

    Returns:
        The path of each plugin by its name.
    """
    return _patch_each(api, namespace, plugins, {"spec": dict(spec)}, done, lambda plugin: _has(plugin, spec))


def annotate_each(
    api: Api, namespace: str, plugins: Sequence[str] | None, annotations: Mapping[str, str | None], done: str
) -> dict[str, str]:
    """Set annotations of plugins where they are not set, or remove them; the others are left alone.

    Args:
        api: the control plane.
        namespace: of the plugins.
        plugins: their names; all have to be there before any is changed.
        annotations: by name; None removes one.
        done: what to print of a plugin that was changed.

    Returns:
        The path of each plugin by its name.
    """
    patch = {"metadata": {"annotations": dict(annotations)}}
    return _patch_each(api, namespace, plugins, patch, done, lambda plugin: _bears(plugin, annotations))


def wait_for_each(
    api: Api,
    paths: Mapping[str, str],
    limit: float,
    word: str,
    settled: Callable[[Mapping[str, Any]], bool] = is_ready,
) -> None:
    """Wait until every plugin is as asked, and print a word for each."""
    for name, path in paths.items():
        wait_until(
            lambda path=path: settled(api.get(path)),  # type: ignore[misc] # mypy infers no default's type
            limit,
            lambda path=path: unready(api.get(path)),  # type: ignore[misc] # the same
            lasting=LASTING,
        )
        print(f"{PLUGIN.label}/{name} {word}", flush=True)


def at_rest(plugin: Mapping[str, Any]) -> bool:
    """Whether a plugin that was suspended has come to rest."""
    return (plugin.get("status") or {}).get("phase") == "Suspended"


def _patch_each(  # noqa: PLR0913, PLR0917 - what two kinds of change have in common
    api: Api,
    namespace: str,
    plugins: Sequence[str] | None,
    patch: Mapping[str, Any],
    done: str,
    has: Callable[[Mapping[str, Any]], bool],
) -> dict[str, str]:
    if not plugins:
        raise WrongUsage("name the plugins: see --help")
    paths = {name: plugin_path(namespace, name) for name in plugins}
    before = {name: api.get(path) for name, path in paths.items()}
    for name, path in paths.items():
        if has(before[name]):
            print(f"{PLUGIN.label}/{name} unchanged", flush=True)
        else:
            api.patch(path, patch)
            print(f"{PLUGIN.label}/{name} {done}", flush=True)
    return paths


def _has(plugin: Mapping[str, Any], spec: Mapping[str, Any]) -> bool:
    found = plugin.get("spec") or {}
    return all(found.get(field) == value for field, value in spec.items())


def _bears(plugin: Mapping[str, Any], annotations: Mapping[str, str | None]) -> bool:
    found = plugin["metadata"].get("annotations") or {}
    return all((key in found) is (value is not None) for key, value in annotations.items())
