"""Labelled frames: reading, checking and storing them."""
