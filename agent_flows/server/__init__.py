"""The server: consumes reports, decides what a port's state is, and answers REST.

Keeps no state outside its database. Loads nothing of the agent's side.
"""

from oslo_service import backend

# oslo.messaging asks for a backend as soon as it is imported, and would get eventlet.
backend.register_backend_default_hook(lambda: backend.BackendType.THREADING)
