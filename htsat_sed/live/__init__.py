"""Events while sound comes: from a microphone, a pipe, an address or a device.

    source ─ thread ─▶ feed ─ windows ─▶ model ─▶ provisional and final events ─▶ outputs

- `sources`: the choice of one; `microphone`: sound by PortAudio; other sources are in `htsat_sed.audio`.
- `feed`: sound between the thread that reads it and the one that computes; the clock of a stream.
- `events`: which events begin, and which are final.
- `listener`: composes these; computes windows, or leaves some out where computing falls behind.
- `clips`: the sound of events as files. `outboxes`: commands, webhooks and MQTT, with retries.
"""
