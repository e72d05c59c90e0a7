"""The commands that operators type: each calls a REST API and prints the answer."""
