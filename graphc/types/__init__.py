"""dtype, shape, tensor type, layout."""
