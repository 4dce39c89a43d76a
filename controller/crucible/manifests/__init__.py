"""Manifests: from files to objects that can be sent, and a folder of them kept applied."""
