"""Messages that share the fate of a change, and the relay that sends them."""
