"""Ways to estimate the value of a step, each fitted to the same trees."""
