"""Clusters: projects of jobflow-remote, their checks, and the jobs of campaigns on them."""
