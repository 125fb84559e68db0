"""`htsat-sed listen`: live detection from a microphone, a pipe, an address or a device."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import typer

from htsat_sed.cli.event_options import EventOptions
from htsat_sed.cli.groups import OUTPUT, Without, argument, option, with_groups
from htsat_sed.cli.message_options import MessageOptions
from htsat_sed.cli.model_options import ModelOptions
from htsat_sed.cli.recording_options import ChannelOptions, parse_channel
from htsat_sed.cli.terminal import emit, errors, output, report, say
from htsat_sed.errors import HtsatSedError, UsageError, counted

if TYPE_CHECKING:
    from htsat_sed.audio import AudioStream
    from htsat_sed.cli.live_view import LiveView
    from htsat_sed.detection.detector import Detector
    from htsat_sed.live.events import Rules
    from htsat_sed.live.listener import Listener, Pace, Report, Saving
    from htsat_sed.live.outboxes import Outbox
    from htsat_sed.live.sources import Origin

_CLOSING = 5.0  # seconds to deliver queued reports at the end
_TIMES = ["%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M:%S%z", "%Y-%m-%dT%H:%M:%S.%f%z"]


@dataclass(frozen=True)
class SourceOptions:
    """Source of the stream."""

    panel: ClassVar[str] = "Source"
    source: str | None = argument(
        None,
        "- for standard input; a URL or device that FFmpeg reads (http, rtsp, ...); or a recording or "
        "FIFO.  \\[default: the microphone]",
        metavar="[SOURCE]",
        show_default=False,
    )
    list_inputs: bool = option(False, "List the inputs of this machine and exit.", "--list-inputs")
    input: str | None = option(
        None,
        "Microphone: its number in --list-inputs, or part of its name.  \\[default: the system's]",
        metavar="NAME|N",
    )
    raw: str | None = option(
        None,
        "Format of raw samples on standard input: u8, s16le, s24le, s32le, f32le, ...",
        metavar="FORMAT",
    )
    raw_rate: int = option(32_000, "Sample rate of raw samples.", metavar="HZ")
    raw_channels: int = option(1, "Channels of raw samples.", metavar="N", min=1)
    source_format: str | None = option(
        None,
        "FFmpeg's format or device for the source, such as alsa or pulse.  \\[default: detected]",
        metavar="NAME",
    )
    reconnect: bool = option(
        True, "Reconnect to a URL when its connection breaks; silence replaces the lost sound."
    )
    start: datetime | None = option(
        None,
        "Start time of the sound, such as 2026-11-28T23:15:00.  \\[default: when it arrives]",
        metavar="TIME",
        formats=_TIMES,
    )

    def origin(self, channels: ChannelOptions) -> Origin:
        """The source and how to open it."""
        from htsat_sed.live.sources import Origin, raw_layout

        if self.input is not None and self.source is not None:
            raise typer.BadParameter("selects a microphone: omit SOURCE", param_hint="--input")
        numbered = self.input is not None and self.input.isdecimal()
        return Origin(
            source=self.source,
            device=int(self.input or 0) if numbered else self.input,
            raw=None if self.raw is None else raw_layout(self.raw, self.raw_rate, self.raw_channels),
            kind=self.source_format,
            channel=parse_channel(channels.channel),
            track=channels.track,
            reconnect=self.reconnect,
        )


@dataclass(frozen=True)
class DelayOptions:
    """Delay of reports."""

    panel: ClassVar[str] = "Delay"
    hop: float | None = option(
        None,
        "Step between the 10 s windows, rounded to whole tokens of 0.3125 s.  \\[default: 1 s, or more "
        "on a slow processor, measured at the start]",
        metavar="SECONDS",
    )
    latency: float | None = option(
        None,
        "Maximum delay between the end of an event and its final report.  \\[default: 1 s more than the "
        "shortest possible]",
        metavar="SECONDS",
    )
    when_behind: Literal["auto", "wait", "drop"] = option(
        "auto",
        "If computing falls behind: wait makes the sender wait, drop skips windows; auto: wait for pipes and "
        "files, drop otherwise.",
    )

    def pace(self, detector: Detector, rules: Rules, origin: Origin) -> Pace:
        """When windows are computed; logs the resulting delay.

        Raises:
            typer.BadParameter: --latency is shorter than possible.
        """
        from htsat_sed.live.listener import Pace, measured_hop

        step, window = detector.config.token_seconds, detector.config.window_seconds
        hop = self.hop
        if hop is None:
            hop, taken = measured_hop(detector)
            say("note", f"a window takes {1000 * taken:.0f} ms")
        tokens = max(1, round(hop / step))
        look_ahead = rules.look_ahead(step)
        least = window + tokens * step + look_ahead
        bound = least + 1.0 if self.latency is None else self.latency
        if bound < least:
            raise typer.BadParameter(
                f"wanted at least {least:.2f} s, the sum of window ({window:g} s), hop ({tokens * step:g} "
                f"s) and post-processing ({look_ahead:.2f} s)",
                param_hint="--latency",
            )
        say(
            "note",
            f"hop {tokens * step:g} s; final events are reported at most {bound:.2f} s after their end",
        )
        drop = self.when_behind == "drop" or (self.when_behind == "auto" and not origin.waits)
        return Pace(hop=tokens, slack=bound - least + tokens * step, drop=drop)


@dataclass(frozen=True)
class OutputOptions:
    """Where reports go."""

    panel: ClassVar[str] = OUTPUT
    view: Literal["auto", "live", "json"] = option(
        "auto",
        "json: one JSON object per line; live: level, classes and events; auto: live on a terminal, json "
        "otherwise.",
    )
    save: Path | None = option(None, "Write the audio of each event to this folder, as WAV.", metavar="DIR")
    pre_roll: float = option(1.0, "Audio to keep before an event.", metavar="SECONDS", min=0.0, max=60.0)
    post_roll: float = option(1.0, "Audio to keep after an event.", metavar="SECONDS", min=0.0, max=60.0)
    longest: float = option(
        60.0,
        "Save at most the last SECONDS of an event.",
        metavar="SECONDS",
        min=1.0,
        max=3600.0,
    )
    execute: list[str] | None = option(
        None,
        "Run this command for each event, with its JSON on standard input; no shell. Repeatable.",
        "--exec",
        metavar="COMMAND",
    )
    webhook: list[str] | None = option(None, "Post each event's JSON to this URL. Repeatable.", metavar="URL")
    mqtt: list[str] | None = option(
        None,
        "Publish each event's JSON under this MQTT topic; full form: "
        "mqtts://USER:PASSWORD@HOST:PORT/TOPIC. Repeatable.",
        metavar="HOST/TOPIC",
    )
    notify: Literal["final", "begin", "all"] = option(
        "final", "Events to report with --exec, --webhook and --mqtt: final events, begun events, or all."
    )

    def outboxes(self) -> list[Outbox]:
        """Outboxes that deliver reports."""
        from htsat_sed.live.outboxes import Command, Mqtt, Webhook

        return [
            *map(Command, self.execute or ()),
            *map(Webhook, self.webhook or ()),
            *map(Mqtt, self.mqtt or ()),
        ]

    def saving(self, rate: int) -> Saving | None:
        """Which clips of events are saved."""
        from htsat_sed.live.clips import Clips
        from htsat_sed.live.listener import Saving

        if self.save is None:
            return None
        return Saving(Clips(self.save, rate), self.pre_roll, self.post_roll, self.longest)


@with_groups
def listen(
    sound: SourceOptions,
    channels: ChannelOptions,
    delay: DelayOptions,
    output_options: OutputOptions,
    model: Annotated[ModelOptions, Without("hop", "shifts")],
    events: EventOptions,
    messages: MessageOptions,
) -> None:
    """Detect sound events live, from a microphone, a pipe, a URL or a device.

    Each event is reported when it begins, and again when it is final.
    Final events equal those of `htsat-sed detect --hop` on the saved recording.
    Ctrl-C and SIGTERM finish the ongoing events and exit with 130.
    SIGHUP reloads the files of --labels and --post-processing.

    [bold]Examples[/bold]

      htsat-sed listen
      htsat-sed listen --labels Bark --save barks/ --exec 'notify-send Bark'
      arecord -f S16_LE -r 32000 -t raw | htsat-sed listen - --raw s16le
      htsat-sed listen rtsp://camera/stream --webhook https://host/events
    """
    if sound.list_inputs:
        _list_inputs()
        return
    origin = sound.origin(channels)
    hop = 10.0 if delay.hop is None else delay.hop
    execution = replace(model.execution, batch_size="1")
    everything = replace(model, hop=hop, labels=None, execution=execution)  # labels may change
    detector = everything.detector(channels, events)

    def rules() -> Rules:
        from htsat_sed.live.events import Rules

        known, post_processing = model.rules(detector.models[0], events)
        return Rules(tuple(known.select(model.labels) or detector.labels), post_processing)

    with ExitStack() as stack:
        code = _listen(stack, origin, detector, rules, sound.start, delay, output_options)
    raise typer.Exit(code)


def _list_inputs() -> None:
    from htsat_sed.live.microphone import inputs

    found = inputs()
    for each in found:
        emit(f"{each.number}\t{each.name}\t{each.channels} channels\t{each.rate} Hz\n")
    if not found:
        say("note", "PortAudio found no input on this machine")


def _listen(
    stack: ExitStack,
    origin: Origin,
    detector: Detector,
    rules: Callable[[], Rules],
    start: datetime | None,
    delay: DelayOptions,
    output_options: OutputOptions,
) -> int:
    """Listen until the end; return the exit code."""
    from htsat_sed.live.feed import Clock
    from htsat_sed.live.listener import Listener

    first = rules()
    rate = detector.config.sample_rate
    pace = delay.pace(detector, first, origin)
    saving, outboxes = output_options.saving(rate), output_options.outboxes()
    live = output_options.view == "live" or (output_options.view == "auto" and output.is_terminal)
    view = _view(stack, detector, origin) if live else None
    listener = Listener(
        detector,
        first,
        pace,
        clock=Clock(None if start is None else start.astimezone()),
        report=_forwarding(view, outboxes, output_options.notify),
        saving=saving,
    )
    stopped = _heed_signals(stack, listener, rules)

    def source(own: ExitStack) -> AudioStream:
        return origin.open(rate, own, listener.gap)

    try:
        listener.listen(source, (lambda: view.show(listener.counts)) if view is not None else lambda: None)
    finally:
        if view is not None:
            view.close()
        for outbox in outboxes:
            outbox.close(_CLOSING)
    return _end(listener, saving, outboxes, stopped)


def _end(listener: Listener, saving: Saving | None, outboxes: list[Outbox], stopped: list[int]) -> int:
    """Print a summary; return the exit code."""
    counts = listener.counts
    if counts.dropped:
        say("warning", f"{counts.dropped} of {counts.windows} windows were skipped")
    done = f"{counts.seconds:.1f} s of sound, {counted(counts.events, 'event')}"
    if stopped:
        say("stopped", done)
        return 130
    if errors.is_terminal:
        say("done", done)
    lost = sum(outbox.lost for outbox in outboxes) + (0 if saving is None else saving.clips.failed)
    return 1 if lost else 0


def _view(stack: ExitStack, detector: Detector, origin: Origin) -> LiveView:
    from htsat_sed.cli.live_view import LiveView

    name = origin.source or "microphone"
    return stack.enter_context(LiveView(detector.labels, "standard input" if name == "-" else name))


def _forwarding(view: LiveView | None, outboxes: list[Outbox], notify: str) -> Callable[[Report], None]:
    """A function that forwards reports to the output and the outboxes."""

    def forward(made: Report) -> None:
        line = made.json()
        if view is None:
            emit(line + "\n")
        else:
            view.event(made)
        if notify == "all" or notify == made.state:
            for outbox in outboxes:
                outbox.put(line)

    return forward


def _heed_signals(stack: ExitStack, listener: Listener, rules: Callable[[], Rules]) -> list[int]:
    """Stop at SIGINT and SIGTERM, reload rules at SIGHUP; returns a list that collects stop signals."""
    came: list[int] = []

    def stop(number: int, _: object) -> None:
        came.append(number)
        if len(came) > 1:
            os._exit(130)
        listener.stop()

    def reload(*_: object) -> None:
        try:
            listener.change(rules())
        except (HtsatSedError, UsageError, typer.BadParameter) as error:
            report(error)
            say("note", "labels and thresholds are unchanged")
        else:
            say("note", "labels and thresholds were reloaded")

    handlers: dict[str, Callable[..., None]] = {"SIGINT": stop, "SIGTERM": stop, "SIGHUP": reload}
    for name, handler in handlers.items():
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            stack.callback(signal.signal, number, signal.signal(number, handler))
    return came
