"""256-bit hashes of pictures: searching them, finding all near pairs, and lists of known ones.

`search` answers queries exactly, `near` finds the near pairs within a set, `stars` groups them round their heads,
`lists` is the file of known hashes, `exchange` reads what other tools share. Pure: numpy and Arrow, no torch.
"""
