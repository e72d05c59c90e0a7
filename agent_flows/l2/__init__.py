"""Port wiring: OVSDB, links, bridges, networks, and the flows made of it."""
