"""Unit conversions."""

GPA = 160.21766208
"""GPa in one eV/Å³."""
