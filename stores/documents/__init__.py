"""Models of the documents that stores keep."""
