"""Values to views: what an analysis found, in words, tables and pictures."""
