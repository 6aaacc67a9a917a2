"""Language models as agents and as Q models: prompts, local models, the small agent cloned from scratch."""
