"""YAML recipes, the assets they need, and the generator of the starter tasks."""
