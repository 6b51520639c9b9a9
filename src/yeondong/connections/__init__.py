"""What opening a database needs, shared by the store and the broker that may live in it."""
