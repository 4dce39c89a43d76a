"""What makes instances: one package for each runtime, one protocol for all."""
