"""Documents, job stores, candidates, hulls, queries and reports."""
