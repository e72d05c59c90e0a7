"""Measures agent_flows, and the bare tools doing the same work."""
