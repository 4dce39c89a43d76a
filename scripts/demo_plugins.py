"""The demonstration's plugins: made ready to run here, and read while they do."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from demo_stage import NotSeen

from crucible.cli.objects import replicas_of

if TYPE_CHECKING:
    from demo_stage import Stage


def built(example: Path, scratch: Path) -> tuple[Path, str]:
    """Return an example's folder once it can run, and what was done for that.

    Without a compiler the binary plugin is a program of this host that needs only the C library.

    Raises:
        NotSeen: it cannot be made to run here.
    """
    name = example.parent.name
    if name == "javascript" and shutil.which("node") is None:
        raise NotSeen("there is no node to run the javascript plugin: apt-get install nodejs")
    if not (example / "Makefile").is_file():
        return example, ""
    make, compiler, sleep = (shutil.which(program) for program in ("make", "cc", "sleep"))
    if make and compiler:
        done = subprocess.run([make, "-s", "-C", str(example)], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise NotSeen(f"the {name} plugin does not compile: {done.stderr.strip()}")
        return example, f"compiled the {name} plugin"
    if sleep is None:
        raise NotSeen(f"nothing can compile the {name} plugin: apt-get install gcc libc6-dev make")
    folder = scratch / name
    (folder / "build").mkdir(parents=True)
    shutil.copy(Path(sleep).resolve(), folder / "build" / "sleep")
    manifest = yaml.safe_load((example / "plugin.yaml").read_text())
    manifest["spec"]["entrypoint"] = ["sleep", "infinity"]
    (folder / "plugin.yaml").write_text(yaml.safe_dump(manifest))
    return folder, f"no compiler here, so the {name} plugin is this host's own {sleep}"


def rewritten(stage: Stage, source: Path, **fields: object) -> Path:
    """Copy a plugin's manifest, with its source where it is and some fields of its spec changed."""
    manifest = yaml.safe_load((source / "plugin.yaml").read_text())
    manifest["spec"]["source"] = {"path": str((source / manifest["spec"]["source"]["path"]).resolve())}
    for name, value in ((name, value) for name, value in fields.items() if value):
        manifest["spec"][name] = manifest["spec"].get(name, {}) | value if isinstance(value, dict) else value
    path = stage.folder / f"{manifest['metadata']['name']}.yaml"
    path.write_text(yaml.safe_dump(manifest))
    return path


def attempts_of(on: Stage) -> list[dict[str, Any]]:
    """Follow the hostile plugin's output to its summary, and return every attempt."""
    (replica,) = replicas_of(on.plugin("hostile"))
    attempts: list[dict[str, Any]] = []
    path = f"/api/v1/namespaces/default/pods/{replica['name']}/log"
    with on.api.stream(path, {"follow": "true"}, endless=False) as lines:
        for line in lines:
            said = json.loads(line)
            if "summary" in said:
                if said["summary"]["attempts"] != len(attempts):
                    raise NotSeen(f"of {said['summary']['attempts']} attempts {len(attempts)} were reported")
                return attempts
            if "attempt" in said:
                attempts.append(said)
    raise NotSeen("the hostile plugin ended before it had tried everything")


def phase(plugin: dict[str, Any]) -> str:
    """Return the phase of a Plugin; empty before the controller spoke of it."""
    return str((plugin.get("status") or {}).get("phase", ""))


def is_running(plugin: dict[str, Any]) -> bool:
    """Whether every replica runs, by the newest word on the newest generation."""
    return (
        phase(plugin) == "Running"
        and plugin["status"].get("observedGeneration") == plugin["metadata"]["generation"]
    )
