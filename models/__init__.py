"""Click models with an injected embedding."""
