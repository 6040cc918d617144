"""Convex hulls of formation energies."""
