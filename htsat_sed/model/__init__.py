"""The HTS-AT model: log-mel front end, Swin backbone, token-semantic head, checkpoints and runtimes."""
