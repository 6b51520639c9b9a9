"""Messages between applications, by way of a broker."""
