"""How fast agent_flows is, measured beside the bare tools doing the same work."""
