"""Labels for every format."""

from htsat_sed.detection.events import Event
from htsat_sed.labels import normal

EVENTS = [
    Event(0.3125, 1.25, "Speech", 0.9312),
    Event(1.0, 4.0, "Running water", 0.5),
    Event(1.25, 2.0, 'Bell "ding"', 0.25),
    Event(2.0, 3.5, "Speech", 0.75),
]


def as_read(events):
    """The same with labels as every reader has them: composed, without blanks at the ends."""
    return sorted(Event(e.onset, e.offset, normal(e.label), e.score) for e in events)


def bounds(events):
    return [(e.onset, e.offset, e.label) for e in events]


def write(path, text):
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


TRYING = [
    *(
        "Baby cry, infant cry",
        "鳥の声",
        "🐦 bird",
        "e\u0301",
        "\u200fRTL \u05d0",
        'he said "hi"',
        '"',
        "'",
        "&lt;",
    ),
    *(
        "line\nbreak",
        "tab\there",
        "a\u2028b",
        "R&B <i> --> x",
        "1.5",
        "NOTE",
        "WEBVTT",
        "<exists>",
        "a = 1 ! b",
    ),
    *("\\u0041", "x\\", ";; no", "#", "%s", "00:00:01.000 --> 00:00:02.000"),
]


"""Labels that a careless reader or writer takes for something else."""


TRYING_EVENTS = sorted(
    [Event(i * 10.5, i * 10.5 + 10.5, label, 0.5) for i, label in enumerate(TRYING)]  # each touches the next
    + [Event(3600 * hours + 0.001, 3600 * hours + 1.999, "Dog", 0.25) for hours in (1, 25, 100)]
    + [Event(0, 86_400, "Rain", 0.0), Event(5, 15, "Cat", 0.1234), Event(5, 8, "Cat", 1.0)]  # at once
)
