"""Flows in: a bare Debian and this checkout. Flows out: real servers in a state directory of their own.

`state` knows the paths, `machine` installs, `servers` starts and stops, `database` fills a database, `__main__` is what
make calls. Set-up needs nothing but the system's Python, so these modules import the standard library only.
"""
