"""Relaxation of many structures in one batch; one failure affects no other structure."""
