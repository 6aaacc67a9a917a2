"""From finished episodes to tables, figures and sentences."""
