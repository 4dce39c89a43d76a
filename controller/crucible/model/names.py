"""Names that other programs see: the API group, kinds, labels and annotations."""

from __future__ import annotations

from typing import Final

GROUP: Final = "crucible.dev"
VERSION: Final = "v1alpha1"
API_VERSION: Final = f"{GROUP}/{VERSION}"

KIND: Final = "Plugin"
PLURAL: Final = "plugins"
SINGULAR: Final = "plugin"
SHORT_NAME: Final = "plg"
CATEGORY: Final = "crucible"

FINALIZER: Final = f"{GROUP}/instances"
"""Holds a Plugin until its instances are gone."""

REVISION_KIND: Final = "PluginRevision"
REVISION_PLURAL: Final = "pluginrevisions"
PLUGIN_LABEL: Final = f"{GROUP}/plugin"
"""Label of what belongs to a Plugin: its name."""

EGRESS: Final = f"{GROUP}/egress"
"""Annotation of PodMetrics: what went through the egress proxy for all instances of a plugin, as JSON."""

ROLLBACK: Final = f"{GROUP}/rollback"
"""Annotation: a person asked to run one revision in the place of another (see ``model/asked.py``)."""

FROZEN: Final = f"{GROUP}/frozen"
"""Annotation: a person asked then to hold every instance still; empty: nobody does any more."""

RESTARTED_AT: Final = f"{GROUP}/restarted-at"
"""Annotation: a person asked for a restart then. A new value replaces every instance."""

SOURCE_DIGEST: Final = f"{GROUP}/source-digest"
"""Annotation: the digest of the folder that ``spec.source.path`` named when it was applied."""
