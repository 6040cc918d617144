"""Screening campaigns: what all ways to run them share."""
