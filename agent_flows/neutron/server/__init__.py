"""What Neutron's server loads: mechanism driver, service plugin, API extension, tables."""
