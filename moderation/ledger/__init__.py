"""The ledger: all that earlier nights have judged, so that the nightly job judges only what is new or changed.

`rows` says what a row is, `store` keeps the log and its snapshot, `known` is the part of it that fits in memory,
`difference` holds a listing against it, `copies` gives an object's verdict to its other names, `entry` writes a
finished night back.
"""
