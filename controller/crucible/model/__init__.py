"""Inert values: what a person asks for, what is, and what was decided. No I/O, no clock, no randomness."""
