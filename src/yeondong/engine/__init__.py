"""What runs flows: one thread per flow talks to its source, lanes run handlers and sinks."""
