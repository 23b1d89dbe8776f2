"""The tables and figures of the paper (`fuxictr-miss benchmark`)."""

from fuxictr_miss.commands import benchmark
from fuxictr_miss.errors import run_command

if __name__ == "__main__":
    run_command(benchmark.main)
