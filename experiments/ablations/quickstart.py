"""What the parts of the quickstart are worth: five changes, each with three seeds.

python -m launch.ablate --config=experiments/ablations/quickstart.py --workdir=sweeps/quickstart
"""

from pathlib import Path

from launch.ablation import Ablation
from launch.plan import Deciding


def get_ablation() -> Ablation:
    return Ablation(
        experiment=Path(__file__).parent.parent / "quickstart.py",
        baseline={"epochs": "2"},
        changes={
            "no dropout": {"dropout": 0.0},
            "no weight decay": {"weight_decay": 0.0},
            "no average": {"ema": 0.0},
            "half the width": {"channels": (8, 16, 32)},
            "a third of the rate": _a_third_of_the_rate,
        },
        deciding=Deciding("test/accuracy"),
    )


def _a_third_of_the_rate(config) -> None:
    config.learning_rate = config.learning_rate / 3
