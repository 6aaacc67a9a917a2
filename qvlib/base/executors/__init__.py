"""Where stages do their work: processes of this machine, or Ray."""
