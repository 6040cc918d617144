"""The work queue that processes share in a store."""
