"""The embedded store: collections of documents in one SQLite file."""
