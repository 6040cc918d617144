"""The filter language and queries of candidates."""
