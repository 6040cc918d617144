"""Properties of many materials, computed in common batches."""
