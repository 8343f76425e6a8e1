"""Checks everything that the sync depends on: `runner` makes the checks, in the order of these modules.

`postgresql` (the database and the extension), `server` (files and login), `connection` (Neo4j), `indexes` and `nodes`
(its graph), `application` (its tables, and the role), `schedule`. `case` defines what a check is and what it may look
at.
"""
