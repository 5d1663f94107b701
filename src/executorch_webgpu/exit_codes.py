"""What the command ends with, besides 0."""

BAD_INPUT = 2  # as click has it for wrong usage
INTERRUPTED = 130  # the shell's convention: 128 + SIGINT
