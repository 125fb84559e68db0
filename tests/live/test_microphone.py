"""A microphone, with PortAudio replaced at the border that sounddevice documents."""

import sys
import threading
from contextlib import ExitStack
from types import SimpleNamespace

import numpy as np
import pytest

from htsat_sed.errors import AudioError, UsageError
from htsat_sed.live import microphone
from htsat_sed.live.microphone import inputs
from htsat_sed.live.sources import Origin

RATE = 48_000
DEVICES = [
    {"name": "speaker", "max_input_channels": 0, "default_samplerate": 44_100.0},
    {"name": "USB mic", "max_input_channels": 2, "default_samplerate": 48_000.0},
]


class PortAudio:
    """What `sounddevice` offers, with a device that delivers these blocks.

    See https://python-sounddevice.readthedocs.io/en/latest/api/streams.html#sounddevice.InputStream.
    """

    class PortAudioError(Exception):
        pass

    def __init__(self, blocks: list[np.ndarray], *, overflow: bool = False) -> None:
        self.given: dict[str, object] = {}
        self.closed = False
        self._blocks, self._overflow = blocks, overflow

    def query_devices(self, device: int | str | None = None, kind: str | None = None) -> object:
        if kind is None:
            return DEVICES
        if device not in (None, 1, "USB"):
            raise ValueError(f"No input device matching {device!r}")
        return DEVICES[1]

    def InputStream(self, **given: object) -> "PortAudio":
        self.given = given
        if given["channels"] > 2:
            raise self.PortAudioError("Invalid number of channels [PaErrorCode -9998]")
        return self

    def __enter__(self) -> "PortAudio":
        def call() -> None:
            status = SimpleNamespace(input_overflow=self._overflow)
            for block in self._blocks:
                self.given["callback"](block, len(block), None, status)
                block[:] = 9.0  # PortAudio uses its buffer again

        self._thread = threading.Thread(target=call)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.join()
        self.closed = True


def test_blocks_come_at_the_model_s_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    time = np.arange(2 * RATE) / RATE
    tone = (0.5 * np.sin(2 * np.pi * 440 * time)).astype(np.float32)[:, None]
    device = PortAudio(np.split(tone.copy(), 20))
    monkeypatch.setitem(sys.modules, "sounddevice", device)
    monkeypatch.setattr(microphone, "_SILENT", 0.2)
    with ExitStack() as stack:
        stream = Origin(device="USB").open(32_000, stack, lambda *_: None)
        heard = []
        with pytest.raises(AudioError, match=r"has delivered no sound for 0\.2 s"):
            heard.extend(stream.blocks())
    assert device.closed
    assert (device.given["samplerate"], device.given["channels"], device.given["device"]) == (RATE, 1, "USB")
    whole = np.concatenate(heard)
    assert len(whole) == pytest.approx(2 * 32_000, abs=2000)  # what the resampler holds back
    expected = 0.5 * np.sin(2 * np.pi * 440 * np.arange(len(whole)) / 32_000)
    np.testing.assert_allclose(whole[1000:-1000], expected[1000:-1000], atol=1e-3)


def test_a_channel_of_a_device_with_two(monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = [np.tile(np.float32([0.25, -0.5]), (4800, 1))]
    monkeypatch.setitem(sys.modules, "sounddevice", PortAudio(blocks))
    with ExitStack() as stack:
        stream = Origin(device=1, channel=2).open(RATE, stack, lambda *_: None)
        assert next(stream.blocks()).tolist() == [-0.5] * 4800


def test_lost_sound_is_reported(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    device = PortAudio([np.zeros((480, 1), np.float32)] * 3, overflow=True)
    monkeypatch.setitem(sys.modules, "sounddevice", device)
    monkeypatch.setattr(microphone, "_SILENT", 0.2)
    with ExitStack() as stack, pytest.raises(AudioError):
        list(Origin().open(RATE, stack, lambda *_: None).blocks())
    assert "samples were lost" in caplog.text


@pytest.mark.parametrize("how", [{"device": "nothing"}, {"channel": 3}])
def test_inputs_that_cannot_be_opened(monkeypatch: pytest.MonkeyPatch, how: dict[str, object]) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", PortAudio([]))
    with ExitStack() as stack, pytest.raises(AudioError, match="--list-inputs"):
        Origin(**how).open(RATE, stack, lambda *_: None)


def test_inputs_are_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", PortAudio([]))
    assert [tuple(each) for each in inputs()] == [(1, "USB mic", 2, 48_000)]


def test_a_missing_library_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    with pytest.raises(UsageError, match=r"htsat-sed\[live\]"):
        inputs()
