"""An HTTP endpoint whose answers come out of a search."""
