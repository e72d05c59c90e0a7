"""Hosts whose firewall driver is not ours: what it must have left, and what it did leave."""
