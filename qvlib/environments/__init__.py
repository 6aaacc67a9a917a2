"""Worlds with deterministic transitions: tasks, states, steps, rewards."""
