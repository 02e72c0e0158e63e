"""The training scripts as tests run them in this process: on the published settings, so that a
user's edit of a script's dict changes no test."""

import ast
from pathlib import Path

from studies import published, scripts

ROOT = Path(__file__).resolve().parent.parent


class Script:
    """What a script's file does when it is run, with settings that a test may replace."""

    def __init__(self, name: str) -> None:
        self.__name__ = name
        self.__file__ = str(ROOT / f"{name}.py")
        self.__doc__ = ast.get_docstring(ast.parse(Path(self.__file__).read_text()))
        self.dataset = name.split("_")[1]
        self.retraining = name.endswith("_retrain")
        self.SETTINGS = dict((published.RETRAIN if self.retraining
                              else published.PRESETS)[self.dataset])

    def main(self) -> None:
        """Run it."""
        run = scripts.retrain if self.retraining else scripts.search
        run(self.__doc__, self.SETTINGS)


train_movielens = Script("train_movielens")
train_movielens_retrain = Script("train_movielens_retrain")
train_criteo = Script("train_criteo")
train_criteo_retrain = Script("train_criteo_retrain")
train_avazu = Script("train_avazu")
train_avazu_retrain = Script("train_avazu_retrain")
