"""Whether all that the sync stands on is sound: `runner` makes the checks, in the order of these modules.

`database` (the extension's own), `server` (files and login), `connection` (Neo4j itself), `indexes` and `nodes` (its
graph), `tables` (the application's, and the role), `schedule`. `case` is what a check is and may look at.
"""
