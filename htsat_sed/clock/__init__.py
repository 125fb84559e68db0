"""Start times of recordings, from their metadata or their names.

Sources in order of preference: GUANO, AudioMoth's comment, Wildlife Acoustics' metadata, the Broadcast Wave
extension, iXML, MP4's creation time, the file name. Times before 1990 come from unset clocks and are ignored.
"""

from __future__ import annotations

from htsat_sed.clock.names import named_time
from htsat_sed.clock.start import SOURCES, Clock, Start, Starts, parse_time, parse_zone

__all__ = ["SOURCES", "Clock", "Start", "Starts", "named_time", "parse_time", "parse_zone"]
