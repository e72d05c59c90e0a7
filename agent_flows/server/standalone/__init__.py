"""The server without Neutron: REST API, desired state, its own tables."""
