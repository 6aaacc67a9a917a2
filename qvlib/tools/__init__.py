"""Beside the runs: benchmarks, parity with the originals, dry runs, what a run needs."""
