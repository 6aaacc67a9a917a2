"""What everything stands on; knows nothing of the rest."""
