"""256-bit hashes of pictures: search among them, all near pairs within a set, lists of known hashes.

`search` answers queries exactly. `pairs` finds the near pairs within a set of hashes; `embedding_pairs` finds pairs of
embeddings and confirms them by hash; `grouping` puts pairs into groups, each around one head. `lists` is the file of
known hashes; `exchange` reads the lists of other tools. Pure: numpy and Arrow, no torch.
"""
