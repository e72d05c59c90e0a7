"""The wire between agents and server, over oslo.messaging.

Version 1.0; every later change is additive. Knows spec and report only.
"""
