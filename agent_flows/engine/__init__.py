"""Runs flows. Knows TaskFlow; knows nothing of networking."""
