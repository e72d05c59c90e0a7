"""The server's side: takes reports and decides the state of each port.

``core`` is what the standalone server and Neutron's server share, ``standalone`` the server with a
REST API and tables of its own. All state is in the database. Loads nothing of the agent's side.
"""

from oslo_service import backend

# oslo.messaging asks for a backend as soon as it is imported, and would get eventlet.
backend.register_backend_default_hook(lambda: backend.BackendType.THREADING)
