"""Unit conversions."""

GPA = 160.21766208
"""One eV/Å³ in GPa."""
