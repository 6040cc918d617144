"""Projects of jobflow-remote for a cluster: written from a few answers, and checked."""
