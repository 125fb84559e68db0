"""Report pages: single HTML files to view, play and correct detected events.

- `sketch` computes spectrogram, waveform and sound of a recording while it is decoded for the model.
- `page` builds the page from these and from the template, style and scripts in this folder.
- `links` makes links to events and periods in a page.
"""
