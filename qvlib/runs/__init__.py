"""Work on disk: stages that resume, and what made them."""
