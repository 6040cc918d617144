"""Relaxation of many structures in one batch, in which a failure affects only one structure."""
