"""A screening campaign: what every way to run it shares."""
