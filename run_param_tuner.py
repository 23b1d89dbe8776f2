"""Search hyper-parameters by validation (`fuxictr-miss tune`)."""

from fuxictr_miss.commands import tune
from fuxictr_miss.errors import run_command

if __name__ == "__main__":
    run_command(tune.main)
