"""A whole Neutron of our own: API, RPC server, agents, database and message bus.

Real programs of the release under test, without keystone, in namespaces,
directories and on addresses of their own.
"""
