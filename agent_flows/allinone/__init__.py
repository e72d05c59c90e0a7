"""Server, agent and API in one process, for a first look and for tests."""
