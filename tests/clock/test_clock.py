"""Clock times: headers and names as recorders write them, time zones and changes of the clock."""

import io
import os
import struct
from datetime import UTC, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import headers_made as made
import pytest
from hypothesis import given
from hypothesis import strategies as st

from htsat_sed.clock import Clock, Start, named_time, parse_zone
from htsat_sed.clock.metadata import audiomoth_time, read_times
from htsat_sed.errors import UsageError

BERLIN = ZoneInfo("Europe/Berlin")
SINCE_1904 = 2_082_844_800
MOTH = made.AUDIOMOTH
OLD_GAIN = "at gain setting 2 while battery state was"
V_1_4 = "at medium gain setting while battery state was 3.9V and temperature was 22.1C."
V_1_6 = "at medium gain while battery was greater than 4.9V and temperature was -1.5C."
COMMENTS = {
    "1.0.0": f"Recorded at 19:17:30 15/03/2018 by {MOTH[:9]} 24F319055FDF2F5B {OLD_GAIN} 4.5V",
    "1.0.1": f"Recorded at 19:17:30 15/03/2018 (UTC) by {MOTH} {OLD_GAIN} 4.5V",
    "1.2.0": f"Recorded at 20:17:30 15/03/2018 (UTC+1) by {MOTH} {OLD_GAIN} > 5.0V.",
    "1.2.1": f"Recorded at 14:17:30 15/03/2018 (UTC-5) by {MOTH} {OLD_GAIN} less than 3.6V. "
    "Recording cancelled before completion due to low battery voltage.",
    "1.2.2": f"Recorded at 00:47:30 16/03/2018 (UTC+5:30) by {MOTH} {OLD_GAIN} 4.1V.",
    "1.4.0": f"Recorded at 19:17:30 15/03/2018 (UTC) by {MOTH} {V_1_4} Amplitude threshold was 320.",
    "1.6.0": f"Recorded at 15:47:30 15/03/2018 (UTC-3:30) during deployment 0123456789ABCDEF using external "
    f"microphone {V_1_6} Recording stopped due to switch position change.",
    "GPS": f"Recorded at 19:17:30.000 15/03/2018 (UTC) {made.GPS}",
}
EVENING = datetime(2018, 3, 15, 19, 17, 30, tzinfo=UTC)
DAWN = datetime(2026, 5, 12, 4, 30)
DAWN_UTC = datetime(2026, 5, 12, 2, 30, tzinfo=UTC)
MP4_DAWN = int(DAWN_UTC.timestamp()) + SINCE_1904
VORBIS = struct.pack("<I", 0) + b"\1\0\0\0" + b"\xff\0\0\0comment=" + COMMENTS["1.2.0"].encode()
RF64 = made.wave(
    made.chunk(b"ds64", struct.pack("<QQQI", 0, 1600, 800, 0)),
    after=made.guano("2026-05-12T04:30:00"),
    form=b"RF64",
)

HEADERS = [
    *((f"audiomoth {name}", "audiomoth", made.wave(made.info(text)), EVENING) for name, text in COMMENTS.items()),
    ("guano UTC", "guano", made.wave(after=made.guano("2026-05-12T02:30:00Z")), DAWN_UTC),
    ("guano zone", "guano", made.wave(after=made.guano("2026-05-12T04:30:00+02:00")), DAWN_UTC),
    ("guano -0230", "guano", made.wave(after=made.guano("2026-05-12 00:00:00.500-0230", newline="\r\n")),
     DAWN_UTC + timedelta(seconds=0.5)),
    ("guano local", "guano", made.wave(made.guano("2026-05-12T04:30:00")), DAWN),
    ("guano RF64", "guano", RF64.replace(b"data\x40\x06\0\0", b"data\xff\xff\xff\xff"), DAWN),
    ("wamd zone", "wamd", made.wave(after=made.wamd("2026-05-12 04:30:00+02:00")), DAWN_UTC),
    ("wamd milliseconds", "wamd", made.wave(after=made.wamd("2026-05-12 04:30:00.000")), DAWN),
    ("wamd plain", "wamd", made.wave(made.wamd("2026-05-12 04:30:00")), DAWN),
    ("bext", "bext", made.wave(made.bext("2026-05-12", "04:30:00")), DAWN),
    ("bext other separators", "bext", made.wave(made.bext("2026:05:12", "04-30-00")), DAWN),
    ("ixml", "ixml", made.wave(after=made.ixml("2026-05-12", "04:30:00")), DAWN),
    ("mp4", "mp4", made.mp4(MP4_DAWN), DAWN_UTC),
    ("mp4 64 bits", "mp4", made.mp4(MP4_DAWN, version=1), DAWN_UTC),
    ("flac comment", "audiomoth", made.flac((4, VORBIS)), EVENING),
    ("flac foreign metadata", "guano", made.flac((2, b"riff" + made.guano("2026-05-12T04:30:00"))), DAWN),
    ("flac foreign info", "audiomoth", made.flac((2, b"riff" + made.info(COMMENTS["1.0.1"]))), EVENING),
]  # fmt: skip


@pytest.mark.parametrize(
    ("source", "data", "time"), [row[1:] for row in HEADERS], ids=[row[0] for row in HEADERS]
)
def test_headers(tmp_path, source, data, time):
    path = tmp_path / "20010101_000000.WAV"  # what is in the file comes before its name
    path.write_bytes(data)
    assert Clock().start(path) == Start(time, source)


def test_there_are_twenty_forms_of_headers():
    assert len(HEADERS) >= 20


NAMES = {
    "20260512_043000.WAV": DAWN,
    "20260512_043000T.WAV": DAWN,
    "24F31903_20260512_043000.WAV": DAWN,
    "S4A03895_20260512_043000.wav": DAWN,
    "SMM01234_20260512_043000.wav": DAWN,
    "ARIZONA_0+1_20260512$043000.wav": DAWN,
    "20260512_043000+0200.wav": DAWN_UTC,
    "2MA04568_20260512_043000_+0200.wav": DAWN_UTC,
    "20260512T043000+0200_REC.flac": DAWN_UTC,
    "20260511T213000-0500_REC.flac": DAWN_UTC,
    "2026-05-12T04:30:00+02:00.flac": DAWN_UTC,
    "2026-05-12T02:30:00Z.wav": DAWN_UTC,
    "2026-05-12T04-30-00.wav": DAWN,
    "2026-05-12 04.30.00.wav": DAWN,
    "2026-05-12_04-30.wav": DAWN,
    "2026-05-12-birdnet-04:30:00.mp3": DAWN,
    "PXL_20260512_043000123.mp4": DAWN + timedelta(milliseconds=123),
    "20260512043000.wav": DAWN,
    "20260512_043000-20260512_053000.wav": DAWN,
    "site 20260512/20260512_043000_0007.wav": DAWN,
    # Song Meter SM2, SM3 (without and with GPS, seewave's examples), SM4BAT, Mini, Micro; Echo Meter Touch
    "__1__20260512_043000.wav": DAWN,
    "ZA01_0_20260512_043000_000.wav": DAWN,
    "CNRS_0+1_20260512_043000.wav": DAWN,
    "PARIS_-0-_20260512$043000.wav": DAWN,
    "S4U01234_20260512_043000.wav": DAWN,
    "SMA00556_20260512_043000.wav": DAWN,
    "Myotis_20260512_043000.wav": DAWN,
    # AudioMoth with its number of 16 digits, and before firmware 1.2.2
    "24E144085F256398_20260512_043000.WAV": DAWN,
    "248D9B0420210520_20260512_043000.WAV": DAWN,
    "5AF65A70.WAV": datetime(2018, 5, 12, 3, 7, 28, tzinfo=UTC),
    # Frontier Labs, also with the end and the place
    "S20260512T043000.402646+0200_E20260512T091251.967555+1000_-12.34567+78.98102.wav": DAWN_UTC
    + timedelta(microseconds=402646),
    "S20260512T043000676+0200_E20260512T040446501+1000.wav": DAWN_UTC + timedelta(milliseconds=676),
    "20260512_043000_Bar29 [27.2819 90.1361].wav": DAWN,
    # Swift and SwiftOne
    "SWIFT01_20260512_043000.wav": DAWN,
    "SwiftOne_20260511_223000_-0400.wav": DAWN_UTC,
    # Hydrophones: SoundTrap, icListen, AMAR, PAMGuard
    "5147.260512043000.wav": DAWN,
    "671629352.260512043000.sud": DAWN,
    "ICLISTENHF1234_20260512T023000.000Z.wav": DAWN_UTC,
    "AMAR460.1.20260512T023000Z.wav": DAWN_UTC,
    "PAM_20260512_043000_000.wav": DAWN,
    # Pettersson after renaming, Peersonic, OwlSense, Titley, Teensy
    "ABC2026-05-12_04_30_00_M00667DEF.wav": DAWN,
    "Wav0123_2026_05_12__04_30_00.wav": DAWN,
    "OWL_123456_2026-05-12_T04-30-00.WAV": DAWN,
    "2026-05-12 04-30-00.wav": DAWN,
    "WMXZ_0_2026_05_12_04_30_00.wav": DAWN,
    "DM420082_20260512_043000.MP3": DAWN,
    "20260512-043000Z.mp3": DAWN.replace(tzinfo=UTC),
    "5147.261312043000.wav": None,
    "ZOOM0001.WAV": None,
    "260512_0001.WAV": None,
    "10160435.wav": None,
    "5AF65A70.wav": None,
    "60123456.wav": None,
    "20190522_0430.wav": None,
    "20261332_043000.wav": None,
    "20260512_253000.wav": None,
    "20260512_043000/street.wav": None,
    "202605120430001234.wav": None,
    "street.wav": None,
}


@pytest.mark.parametrize("name", NAMES)
def test_names(name):
    assert named_time(name) == NAMES[name]


@pytest.mark.parametrize(
    ("time_format", "path"),
    [
        ("%d-%m-%Y %H.%M", "yard 12-05-2026 04.30 a.wav"),
        ("%y%m%d%H%M%S", "rec-260512043000.wav"),
        ("%Y-%m-%d/%H%M%S", "card/2026-05-12/043000.wav"),
        ("%d%b%Y_%I%M%p", "12May2026_0430AM.wav"),
    ],
)
def test_time_formats(time_format, path):
    assert named_time(path, time_format) == DAWN
    assert named_time("20260512_043000.nothing", time_format) is None


@pytest.mark.parametrize("time_format", ["%Y%m%d", "%H%M", "%Q%Y%m%d%H", "%Y%m%d%H%"])
def test_time_formats_that_are_none(time_format):
    with pytest.raises(UsageError, match="--time-format"):
        Clock(time_format=time_format)


def test_order_of_sources(tmp_path):
    path = tmp_path / "20260101_000000.wav"
    given = [
        (made.ixml("2026-01-05", "00:00:00"), "ixml"),
        (made.bext("2026-01-04", "00:00:00"), "bext"),
        (made.wamd("2026-01-03 00:00:00"), "wamd"),
        (made.info("Recorded at 00:00:00 02/01/2026 (UTC) by " + MOTH), "audiomoth"),
        (made.guano("2026-01-01T00:00:00"), "guano"),
    ]
    for last in range(len(given) + 1):
        path.write_bytes(made.wave(after=b"".join(each for each, _ in given[:last])))
        found = Clock().start(path)
        assert found is not None
        assert found.source == (given[last - 1][1] if last else "name")


def test_clocks_that_were_never_set_do_not_count(tmp_path):
    path = tmp_path / "S_20260512_043000.wav"
    path.write_bytes(made.wave(made.info("Recorded at 00:00:05 01/01/1970 (UTC) by " + MOTH)))
    assert Clock().start(path) == Start(DAWN, "name")
    path.write_bytes(made.mp4(0))
    assert Clock().start(path) == Start(DAWN, "name")
    path.write_bytes(made.wave(made.bext("0000-00-00", "00:00:00"), made.guano("soon")))
    assert Clock().start(path) == Start(DAWN, "name")
    assert Clock().start(tmp_path / "missing.wav") is None


@given(st.datetimes(datetime(1990, 1, 1), datetime(2090, 1, 1)), st.integers(-14 * 4, 14 * 4) | st.none())
def test_guano_reads_the_same(time, quarters):
    zone = None if quarters is None else timezone(timedelta(minutes=15 * quarters))
    text = time.replace(microsecond=time.microsecond // 1000 * 1000, tzinfo=zone).isoformat()
    expected = pytest.importorskip("guano", reason="the extra test is not installed").parse_timestamp(text)
    assert list(read_times(io.BytesIO(made.wave(made.guano(text))))) == [("guano", expected)]


@pytest.mark.parametrize("firmware", sorted(set(COMMENTS) - {"GPS"}))
def test_metamoth_reads_the_same(firmware):
    comment = COMMENTS[firmware]
    parsing = pytest.importorskip("metamoth.parsing", reason="the extra test is not installed")
    expected = parsing.parse_comment(comment)
    zone = expected["timezone"]
    if firmware == "1.6.0":  # metamoth adds the 30 minutes to -3 h
        zone = timezone(-timedelta(hours=3, minutes=30))
    assert audiomoth_time(comment.encode()) == expected["datetime"].replace(tzinfo=zone)


def start(path, zone):
    found = Clock(timezone=zone).start(path)
    assert found is not None
    return found


def test_summer_and_winter_time(tmp_path, caplog):
    for name, begin, end in (
        ("20260329_013000.wav", "2026-03-29T01:30:00.000+01:00", "2026-03-29T03:30:00.000+02:00"),
        ("20261025_013000.wav", "2026-10-25T01:30:00.000+02:00", "2026-10-25T02:30:00.000+02:00"),
        ("20260701_120000.wav", "2026-07-01T12:00:00.000+02:00", "2026-07-01T13:00:00.000+02:00"),
    ):
        found = start(tmp_path / name, BERLIN)
        assert (found.iso(0.0), found.iso(3600.0)) == (begin, end)
    assert start(tmp_path / "20261025_013000.wav", BERLIN).iso(7200.0) == "2026-10-25T02:30:00.000+01:00"
    assert not caplog.messages


def moth(folder, name, comment):
    """An AudioMoth's recording, with its comment or without."""
    path = folder / name
    chunks = [made.info(f"Recorded at {comment} by {MOTH} at medium gain")] if comment else []
    path.write_bytes(made.wave(*chunks))
    return path


IN_UTC = ("20260512_023000.WAV", "04:30:00 12/05/2026 (UTC+2)")
IN_LOCAL_TIME = ("20260513_043000.WAV", "04:30:00 13/05/2026 (UTC+2)")
BARE = ("20260514_043000.WAV", None)


@pytest.mark.parametrize(
    ("recordings", "zone", "warnings"),
    [
        ((IN_UTC, BARE), "Europe/Berlin",
         ["20260512_023000.WAV is named in UTC, according to its metadata; 20260514_043000.WAV has no metadata, and "
          "its name is read as a time in Europe/Berlin"]),
        ((BARE, IN_UTC), None, ["its name is read as a time without a zone"]),
        ((BARE, IN_UTC), "UTC", []),
        ((IN_LOCAL_TIME, BARE), "UTC", ["20260513_043000.WAV is named in UTC+02:00, according to its metadata; "]),
        ((IN_LOCAL_TIME, BARE), "Europe/Berlin", []),
        ((IN_LOCAL_TIME, BARE), None, []),
        ((IN_UTC, IN_LOCAL_TIME), "Europe/Berlin",
         ["20260512_023000.WAV is named in UTC, 20260513_043000.WAV in UTC+02:00, according to their metadata"]),
        ((IN_UTC, ("renamed 20260101_000000.WAV", IN_LOCAL_TIME[1])), "Europe/Berlin", []),
        ((IN_UTC, ("5AF65A70.WAV", None)), "Europe/Berlin", []),
    ],
)  # fmt: skip
def test_names_that_follow_two_clocks_in_one_folder(tmp_path, caplog, recordings, zone, warnings):
    clock = Clock(timezone=parse_zone(zone) if zone else None)
    for name, comment in recordings * 2:
        assert clock.start(moth(tmp_path, name, comment)) is not None
    assert len(caplog.messages) == len(warnings)
    for message, expected in zip(caplog.messages, warnings, strict=True):
        assert message.startswith(f"{tmp_path}: ")
        assert expected in message
    (tmp_path / "other").mkdir()
    Clock(timezone=parse_zone("Asia/Tokyo")).start(moth(tmp_path / "other", *BARE))
    assert len(caplog.messages) == len(warnings)


def named(form, *, away=None):
    """A name, in local time, UTC (0) or a fixed distance from it (hours)."""
    zone = BERLIN if away is None else timezone(timedelta(hours=away))
    return lambda time: (time.astimezone(zone).strftime(form), made.wave())


def header(chunk, *forms, away=None):
    zone = BERLIN if away is None else timezone(timedelta(hours=away))
    return lambda time: ("a.wav", made.wave(chunk(*(time.astimezone(zone).strftime(form) for form in forms))))


RECORDERS = {
    "AudioMoth 1.0.0": header(made.info, f"Recorded at %H:%M:%S %d/%m/%Y by {MOTH} {OLD_GAIN} 4.5V", away=0),
    "AudioMoth 1.0.1": header(made.info, f"Recorded at %H:%M:%S %d/%m/%Y (UTC) by {MOTH} {OLD_GAIN} 4.5V", away=0),
    "AudioMoth 1.4.0": header(made.info, f"Recorded at %H:%M:%S %d/%m/%Y (UTC+2) by {MOTH} {V_1_4}", away=2),
    "AudioMoth 1.6.0": header(
        made.info, f"Recorded at %H:%M:%S %d/%m/%Y (UTC-3:30) during deployment 01 {V_1_6}", away=-3.5),
    "AudioMoth GPS": header(made.info, f"Recorded at %H:%M:%S.000 %d/%m/%Y (UTC) {made.GPS}", away=0),
    "AudioMoth hexadecimal": lambda time: (f"{int(time.timestamp()):08X}.WAV", made.wave()),
    "AudioMoth name": named("%Y%m%d_%H%M%S.WAV"),
    "AudioMoth triggered": named("24F319055FDF2F5B_%Y%m%d_%H%M%ST.WAV"),
    "Song Meter SM2": named("SM2__0__%Y%m%d_%H%M%S.wav"),
    "Song Meter SM3": named("STATION_0+1_%Y%m%d$%H%M%S.wav"),
    "Song Meter SM4": header(made.wamd, "%Y-%m-%d %H:%M:%S"),
    "Song Meter SM4 with zone": header(made.wamd, "%Y-%m-%d %H:%M:%S+01:00", away=1),
    "Song Meter Mini": header(made.guano, "%Y-%m-%d %H:%M:%S+02:00", away=2),
    "Song Meter Mini 2": named("2MA04568_%Y%m%d_%H%M%S_+0100.wav", away=1),
    "Echo Meter Touch": named("Myotis_%Y%m%d_%H%M%S.wav"),
    "Anabat Swift": header(made.guano, "%Y-%m-%dT%H:%M:%S+00:00", away=0),
    "Batlogger": header(made.guano, "%Y-%m-%dT%H:%M:%S"),
    "BAR-LT": named("%Y%m%dT%H%M%S+0100_REC.flac", away=1),
    "Swift": named("SwiftOne_%Y%m%d_%H%M%S_-0400.wav", away=-4),
    "SoundTrap": named("5147.%y%m%d%H%M%S.wav"),
    "icListen": named("ICLISTENHF1234_%Y%m%dT%H%M%S.000Z.wav", away=0),
    "Zoom": header(made.bext, "%Y-%m-%d", "%H:%M:%S"),
    "Sound Devices": header(made.ixml, "%Y-%m-%d", "%H:%M:%S"),
    "telephone": lambda time: ("a.m4a", made.mp4(int(time.timestamp()) + SINCE_1904)),
    "Pettersson": named("%Y-%m-%d_%H_%M_%S_M00667DEF.wav"),
    "Peersonic": named("Wav0123_%Y_%m_%d__%H_%M_%S.wav"),
}  # fmt: skip
AROUND = [  # in Berlin, a second before and after the clock is changed, or as near as clocks without a zone tell
    ("2026-03-29T00:59:59Z", "2026-03-29T01:59:59.000+01:00"),
    ("2026-03-29T01:00:00Z", "2026-03-29T03:00:00.000+02:00"),
    ("2026-10-24T23:59:59Z", "2026-10-25T01:59:59.000+02:00"),
    ("2026-10-25T02:00:00Z", "2026-10-25T03:00:00.000+01:00"),
]


@pytest.mark.parametrize("recorder", RECORDERS)
@pytest.mark.parametrize(("time", "expected"), AROUND)
def test_recorders_around_changes_of_the_clock(tmp_path, caplog, recorder, time, expected):
    name, content = RECORDERS[recorder](datetime.fromisoformat(time))
    (tmp_path / name).write_bytes(content)
    assert start(tmp_path / name, BERLIN).iso(0.0) == expected
    assert not caplog.messages


def test_hours_that_are_repeated_or_left_out_are_warned_about(tmp_path, caplog):
    assert start(tmp_path / "20261025_023000.wav", BERLIN).iso(0.0) == "2026-10-25T02:30:00.000+02:00"
    assert start(tmp_path / "20260329_023000.wav", BERLIN).iso(0.0) == "2026-03-29T03:30:00.000+02:00"
    twice, never = caplog.messages
    assert "20261025_023000.wav: its clock time 2026-10-25 02:30:00 occurs twice in Europe/Berlin" in twice
    assert "20260329_023000.wav: its clock time 2026-03-29 02:30:00 does not occur in Europe/Berlin" in never
    caplog.clear()
    start(tmp_path / "20261025_023000.wav", parse_zone("+01:00"))
    assert not caplog.messages


def test_times_with_a_zone_are_converted(tmp_path):
    path = tmp_path / "a.wav"
    path.write_bytes(made.wave(made.info(COMMENTS["1.0.1"])))
    assert start(path, BERLIN).iso(0.25) == "2018-03-15T20:17:30.250+01:00"
    assert start(path, None).iso(0.25) == "2018-03-15T19:17:30.250+00:00"


def test_time_zones():
    assert parse_zone("Europe/Berlin") == BERLIN
    assert parse_zone("UTC") == UTC
    assert parse_zone("-03:30") == timezone(-timedelta(hours=3, minutes=30))
    for text in ("Berlin", "", "../etc/passwd", "+99:00", "Europe"):
        with pytest.raises(UsageError, match="wanted a time zone such as Europe/Berlin"):
            parse_zone(text)


@given(st.binary(max_size=300))
def test_broken_headers_have_no_time_and_raise_nothing(data):
    for head in (b"RIFF\xff\xff\0\0WAVE", b"fLaC", b"\0\0\0\x08ftyp", b"RF64\0\0\0\0WAVEguan\xff\0\0\0"):
        list(read_times(io.BytesIO(head + data)))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no FIFOs")
def test_a_fifo_is_not_opened(tmp_path):
    """Opening it would wait for a writer; its name still counts."""
    path = tmp_path / "20260512_043000.wav"
    os.mkfifo(path)
    assert Clock().start(path).source == "name"
