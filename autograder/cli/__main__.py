"""`python -m autograder.cli`, for where the command `attn` is not on the PATH."""

from autograder.cli import main

main()
