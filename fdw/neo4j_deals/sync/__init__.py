"""The way of a deal into the tables of the application, in reading order: selection, feed, process, staging."""
