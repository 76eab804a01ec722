"""Models: bundles, what they are made of, and the runner that turns windows into predictions with them."""
