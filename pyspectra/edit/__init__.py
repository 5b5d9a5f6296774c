"""New weights from old ones, as their spectra suggest."""
