"""Between the wire and the core: messages to commands, answers and rows to messages. Pure."""
