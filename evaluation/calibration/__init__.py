"""Fitting an exported bundle's thresholds ξ and capacities to unlabelled images, with no more than the runtime needs."""
