"""Web pages over the store, served to this machine alone."""
