"""Hosts with another firewall driver: reads what it installed and reports whether that is right."""
