"""The demonstration: one sequence of steps, played on agent_flows alone or inside Neutron."""
