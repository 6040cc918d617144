"""Campaigns and property jobs on one machine: a runner and its worker processes."""
