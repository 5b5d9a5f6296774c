"""Parts of pages: the shell, charts and tables of every report that is one HTML file.

A page needs nothing but itself: no script, no network, no font. It follows the light or dark scheme
of its reader and can be printed. All text that comes from elsewhere, as names of layers, passes
through `text` on its way in.
"""
