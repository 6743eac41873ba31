"""A policy with all that it names: lists read from files and objects, definitions and label paths checked.

Loads without torch.
"""
