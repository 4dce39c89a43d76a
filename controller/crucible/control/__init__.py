"""The control plane: where Plugins live, and the operator that reads them from there."""
