"""Flows: jobs put together."""
