"""The server's side: takes reports and decides the state of each port.

``core`` is what the standalone server and Neutron's server share, ``standalone`` the server with a
REST API and tables of its own. All state is in the database. Loads nothing of the agent's side.
"""

from agent_flows import threads

# Before a module of this package imports oslo.messaging.
threads.prefer()
