"""Soft prompts: class embeddings of a check learned from labelled pictures, the networks frozen."""
