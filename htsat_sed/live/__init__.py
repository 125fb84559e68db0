"""Detection in live streams: from a microphone, a pipe, an address or a device.

    source ─ thread ─▶ feed ─ windows ─▶ model ─▶ provisional and final events ─▶ outputs

- `sources`: opens the chosen source; `microphone`: input by PortAudio; others are in `htsat_sed.audio`.
- `feed`: queue between the thread that reads and the one that computes; the clock of a stream.
- `events`: provisional and final events.
- `listener`: composes these; skips windows when computing falls behind.
- `clips`: audio clips of events. `outboxes`: commands, webhooks and MQTT, with retries.
"""
