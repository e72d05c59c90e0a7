"""OpenFlow as ovs-ofctl reads and writes it: flows, cookies, tables, connections."""
