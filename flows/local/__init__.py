"""A campaign on one machine: a runner and its worker processes."""
