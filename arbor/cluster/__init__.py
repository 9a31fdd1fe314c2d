"""One run over the machines of a Ray cluster."""
