"""Verifies a port on its host: its flows, its wiring, and what the switch does with packets."""
