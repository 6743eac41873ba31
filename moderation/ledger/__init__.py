"""The ledger: all that earlier nights have judged, so that the nightly job judges only what is new or changed.

`rows`: what a row holds, and which of several rows counts. `store`: the log and its snapshot. `index`: what is held in
memory while a listing streams by. `difference`: which listed items have to be judged. `listing`: the other listed
items, kept as files of the night. `copies`: an object's verdict under its other names. `entry`: a finished night as
rows.
"""
