"""What this machine needs to compute, and what of it is missing."""
