"""Takes reports, decides the state of each port, keeps the history: for any database and API."""
