"""Document stores: the embedded SQLite store, MongoDB, and the job stores on top of them."""

DATABASE_FILE = "matris.sqlite"
"""Database in a folder of results."""
