"""Models of the documents in the stores."""
