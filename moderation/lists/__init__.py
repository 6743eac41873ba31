"""A policy with all that it names: its lists, read from files and objects, its definitions and label paths, checked.

Loads without torch.
"""
