"""What a model's name means before anything is loaded."""

SMOLLM2, SERVED = "smollm2", "api:"


def is_remote(name: str) -> bool:
    """Whether a model is behind a chat server: ``api:MODEL``."""
    return name.startswith(SERVED)
