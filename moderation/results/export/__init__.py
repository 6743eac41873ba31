"""A finished run in the forms that other programs read: rows, manifests, services' results, objects themselves."""
