"""Trains the bundles that come with the package, from recordings and from what we can make ourselves."""
