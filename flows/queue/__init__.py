"""The work queue that processes share through a store."""
