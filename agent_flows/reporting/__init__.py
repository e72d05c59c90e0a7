"""Delivers reports to the server: kept on disk, sent, acknowledged; and the heartbeat."""
