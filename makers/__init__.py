"""Makers: one jobflow job each."""
