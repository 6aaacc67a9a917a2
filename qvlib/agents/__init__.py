"""The arms of an evaluation, and how agents are made."""
