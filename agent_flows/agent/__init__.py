"""The standalone agent: watches OVSDB, asks the server for specs, runs the flows."""

from agent_flows import threads

# Before a module of this package imports oslo.messaging.
threads.prefer()
