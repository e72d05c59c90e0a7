"""The door to Neutron: nothing outside of this package imports it."""
