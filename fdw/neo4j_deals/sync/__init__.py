"""How a deal gets into the application's tables, in reading order: selection, feed, process, staging."""
