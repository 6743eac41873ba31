"""256-bit hashes of pictures: searching them, finding all near pairs, and lists of known ones.

`search` answers queries exactly. `pairs` finds the near pairs within a set, `embedding_pairs` those of embeddings that
hashes confirm, `grouping` makes groups of pairs, each round a head. `lists` is the file of known hashes, `exchange`
reads what other tools share. Pure: numpy and Arrow, no torch.
"""
