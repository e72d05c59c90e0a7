"""Measures agent_flows, and others that do the same work.

Every bench has one shape, :class:`bench.runner.Bench`: what is measured, its floor (the least that
any program could use for the same work) and its peers (other programs that do it). A bench is a
module with a ``COMMAND`` (:class:`bench.runner.Command`): its name and help, its arguments, and a
context manager that makes everything and gives the ``Bench``. To add one, write the module and
put its ``COMMAND`` into ``COMMANDS`` of ``bench/__main__.py`` and its name into ``tools/bench``.
The runner does the rounds, and prints the medians.
"""
