"""Data sets by the name that a recipe calls them. A new kind is a new file in this folder, registered with `DATA`."""
