"""The status page: HTML about ports, tasks and hosts, of plain values from any source of them."""
