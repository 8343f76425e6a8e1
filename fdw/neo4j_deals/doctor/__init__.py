"""Whether all that the sync stands on is sound."""
