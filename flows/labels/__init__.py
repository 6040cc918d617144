"""First-principles labels of candidates: which to calculate, and how results come back."""
