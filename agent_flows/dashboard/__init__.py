"""The status page of a cloud: served by a command, with what Neutron's API shows to its user."""
