"""Checks everything that the sync depends on: `runner` makes the checks, in the order of these modules.

`database` (the extension itself), `server` (files and login), `connection` (Neo4j), `indexes` and `nodes` (its graph),
`tables` (of the application, and the role), `schedule`. `case` defines what a check is and what it may look at.
"""
