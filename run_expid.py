"""Run one experiment of `config/`: data, training, metrics (`fuxictr-miss train`)."""

from fuxictr_miss.commands import train
from fuxictr_miss.errors import run_command

if __name__ == "__main__":
    run_command(train.main)
