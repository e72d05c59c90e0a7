"""The standalone agent: watches OVSDB, asks the server for specs, runs the flows."""

from oslo_service import backend

# oslo.messaging asks for a backend as soon as it is imported, and would get eventlet.
backend.register_backend_default_hook(lambda: backend.BackendType.THREADING)
