"""HTS-AT itself: log-mel front end, Swin backbone, token-semantic head, and its checkpoints."""
