"""The ledger: all that earlier nights have judged, so that the nightly job judges only what is new or changed.

`rows`: what a row is, and which of several holds. `store`: the log and its snapshot. `index`: what of them is held in
memory while a listing goes by. `difference`: which items of a listing have to be judged. `listing`: what the listing
holds besides those, kept as files of the night. `copies`: an object's verdict for its other names. `entry`: a finished
night as rows.
"""
