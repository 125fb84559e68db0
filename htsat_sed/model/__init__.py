"""HTS-AT itself: log-mel front end, Swin backbone, token-semantic head, and its checkpoints.

When they are imported, OpenVINO and ONNX Runtime would report to their makers: an identifier of the user, the
system, what is run. Here they do not, unless the program that embeds this one imported them before, or has
set the variable. OpenVINO would do so in a forked process, which inherits what handles this one's signals.
"""

import os
import sys

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
