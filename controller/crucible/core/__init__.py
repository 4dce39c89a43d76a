"""Deciding: pure functions from what is to what should happen. No await, clock, randomness or logging."""
