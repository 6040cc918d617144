"""Filter language and queries of candidate documents."""
