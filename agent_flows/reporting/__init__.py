"""Delivers reports to the server: stored on disk, sent, acknowledged; and the heartbeat."""
