"""The server, an agent and an API in one process, for a first look and for tests."""
