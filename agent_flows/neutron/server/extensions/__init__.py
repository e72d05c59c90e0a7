"""API extensions: Neutron loads each file here by its name."""
