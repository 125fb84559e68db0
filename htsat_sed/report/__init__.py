"""A page to look at, listen to and correct what was found in recordings, in one file.

- `sketch`: what the page shows and plays of a recording, computed while it is decoded for the model.
- `page`: the page, from template, style and scripts that lie beside it as files of their own.
"""
