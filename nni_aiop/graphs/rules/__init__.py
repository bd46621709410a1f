"""The canonical form: one network, one graph, whatever way it was written; see `_canonical`."""
