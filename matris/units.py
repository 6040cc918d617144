"""Unit conversions, and names of energy scales."""

GPA = 160.21766208
"""One eV/Å³ in GPa."""

DISPERSION = "-d3bj"
"""End of the names of energy scales with D3(BJ) dispersion."""
