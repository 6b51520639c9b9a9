"""Asynchronous integration between backend systems, five methods behind one message model."""
