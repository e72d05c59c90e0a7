"""Inside the OVS agent of Neutron: its firewall driver and its extension."""
