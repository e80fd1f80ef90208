"""The machinery: devices, batches, checkpoints, reports, command line."""
