"""The REST API: a WSGI application on the database."""
