"""Where state survives a restart: ports, and one adapter per technology."""
