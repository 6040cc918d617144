"""Results as an OPTIMADE provider."""
