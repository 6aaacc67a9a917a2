"""Language models as agents and as Q models: local, small and cloned from scratch, or served."""
