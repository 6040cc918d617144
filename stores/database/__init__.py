"""Stores of documents: the embedded SQLite store, MongoDB, and job stores on top of them."""
