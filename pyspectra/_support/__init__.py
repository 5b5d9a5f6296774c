"""What every room needs and none owns: arguments, files, progress, text."""
