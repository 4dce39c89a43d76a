"""Crucible Plugin Manager: one manifest, three runtimes, the same enforcement."""

__version__ = "0.1.0"
