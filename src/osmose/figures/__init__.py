"""Pictures, one kind a file; matplotlib draws them."""
