"""The package `model_zoo` beside this one, by a name that nothing else can take.

FuxiCTR calls its own zoo `model_zoo`, too, and its wheel leaves a folder of that name in
site-packages. So `from model_zoo.DIN import DIN` may find another zoo, and this package imports
`fuxictr_miss.model_zoo.DIN`. Both names lead to one class.
"""

from pathlib import Path

__path__ = [str(Path(__file__).resolve().parents[2] / "model_zoo")]
