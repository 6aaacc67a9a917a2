"""qvlib: step-level Q-value models for language-model agents (arXiv 2409.09345)."""

__version__ = "0.1.0"
