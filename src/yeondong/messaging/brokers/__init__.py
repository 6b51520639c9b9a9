"""One driver per broker; only the app loads them."""
