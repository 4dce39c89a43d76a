"""Options that several commands share, each declared once."""

import inspect
from collections.abc import Callable, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from crucible.cli.complete import complete_plugins
from crucible.cli.endpoint import Access
from crucible.serving import Serving

_ACCESS: dict[str, Any] = {
    "kubeconfig": Annotated[
        Path | None, typer.Option("--kubeconfig", metavar="FILE", help="How to reach the control plane.")
    ],
    "context": Annotated[
        str | None, typer.Option("--context", metavar="NAME", help="Context of the kubeconfig.")
    ],
    "namespace": Annotated[
        str | None,
        typer.Option("--namespace", "-n", metavar="NAME", help="Namespace; default: the context's."),
    ],
    "state": Annotated[
        Path | None,
        typer.Option("--state", metavar="DIR", help="State folder of the local control plane to talk to."),
    ],
}

Names = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="NAME", hidden=True, help="Plugins.", autocompletion=complete_plugins, show_default=False
    ),
]
Name = Annotated[
    str, typer.Argument(metavar="NAME", hidden=True, help="The plugin.", autocompletion=complete_plugins)
]
Files = Annotated[
    list[str] | None,
    typer.Option("--filename", "-f", metavar="FILE|DIR|-", help="Manifests: a file, a folder, - for input."),
]
Wait = Annotated[bool, typer.Option("--wait/--no-wait", help="Return only when it is done.")]
Timeout = Annotated[
    str,
    typer.Option("--timeout", metavar="TIME", help="How long to wait, like 30s or 2m.", show_default=True),
]
Watch = Annotated[bool, typer.Option("--watch", "-w", help="Go on, line by line, as things change.")]
Release = Annotated[
    str | None,
    typer.Option(
        "--release",
        metavar="NAME",
        help="Of a cluster: the brokers' namespace. Default: $CRUCIBLE_RELEASE, or crucible-system.",
    ),
]
AllNamespaces = Annotated[bool, typer.Option("--all-namespaces", "-A", help="In every namespace.")]


class Output(StrEnum):
    """How to print objects."""

    TABLE = "table"
    WIDE = "wide"
    JSON = "json"
    YAML = "yaml"
    NAME = "name"


class Data(StrEnum):
    """How to print facts that are no objects."""

    TEXT = "text"
    JSON = "json"
    YAML = "yaml"


ObjectOutput = Annotated[
    Output, typer.Option("--output", "-o", metavar="table|wide|json|yaml|name", help="How to print.")
]
DataOutput = Annotated[Data, typer.Option("--output", "-o", metavar="text|json|yaml", help="How to print.")]


class LogFormat(StrEnum):
    """How to write the log."""

    TEXT = "text"
    JSON = "json"


class PullPolicy(StrEnum):
    """When nodes ask a registry; the words are Kubernetes' own."""

    ALWAYS = "Always"
    IF_NOT_PRESENT = "IfNotPresent"
    NEVER = "Never"


# Of programs that run until they are told to stop, on this machine or in pods.
LogAs = Annotated[LogFormat, typer.Option("--log-format", metavar="text|json", help="How to write the log.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Log every step.")]
HealthPort = Annotated[
    int, typer.Option("--health-port", metavar="PORT", min=0, max=65535, help="For /healthz and /readyz.")
]
MetricsPort = Annotated[
    int,
    typer.Option("--metrics-port", metavar="PORT", min=0, max=65535, help="For /metrics; may be the same."),
]
OutsideCluster = Annotated[
    Path | None, typer.Option("--kubeconfig", metavar="FILE", help="Outside of a cluster.")
]
# Of those that know plugins by their pods' addresses: each with its default.
_SERVING: dict[str, tuple[Any, object]] = {
    "namespace": (
        Annotated[
            list[str] | None,
            typer.Option(
                "--namespace", "-n", metavar="NS", help="Serve plugins of this one; repeatable. Default: all."
            ),
        ],
        None,
    ),
    "address": (
        Annotated[
            str, typer.Option("--address", metavar="ADDRESS", help="Where to listen. Default: everywhere.")
        ],
        "",
    ),
    "wait": (
        Annotated[
            float,
            typer.Option(
                "--wait",
                metavar="SECONDS",
                min=0.1,
                max=60,
                help="Until the cluster says whose a connection is: a pod's address is told late.",
            ),
        ],
        10.0,
    ),
    "health_port": (HealthPort, 8080),
    "metrics_port": (MetricsPort, 9090),
    "kubeconfig": (OutsideCluster, None),
    "log_format": (LogAs, LogFormat.TEXT),
    "verbose": (Verbose, False),
}
ImageTag = Annotated[str, typer.Option("--image-tag", metavar="TAG", help="Default: this program's version.")]
ImagePullPolicy = Annotated[
    PullPolicy,
    typer.Option("--image-pull-policy", metavar="Always|IfNotPresent|Never", help="When nodes pull."),
]


def with_access(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command, whose first parameter is an Access, the four options that make one."""
    return _with(command, {name: (annotation, None) for name, annotation in _ACCESS.items()}, Access)


def with_serving(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command, whose first parameter is a Serving, the options that make one."""
    return _with(command, _SERVING, _serving)


def _serving(namespace: list[str] | None, log_format: LogFormat, **given: Any) -> Serving:  # noqa: ANN401
    return Serving(tuple(dict.fromkeys(namespace or ())), log_format=log_format.value, **given)


def _with(
    command: Callable[..., None], options: Mapping[str, tuple[Any, object]], value: Callable[..., object]
) -> Callable[..., None]:
    """Return a command that has these options, and its first parameter made of them."""

    def expanded(**given: Any) -> None:  # noqa: ANN401 - whatever the command takes
        command(value(**{name: given.pop(name) for name in options}), **given)

    own = list(inspect.signature(command).parameters.values())[1:]
    shared = [_keyword(name, annotation, default) for name, (annotation, default) in options.items()]
    parameters = [*(_keyword(each.name, each.annotation, each.default) for each in own), *shared]
    expanded.__doc__ = command.__doc__
    expanded.__annotations__ = {each.name: each.annotation for each in parameters}
    vars(expanded)["__signature__"] = inspect.Signature(parameters)
    return expanded


def _keyword(name: str, annotation: object, default: object) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
