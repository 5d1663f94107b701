"""A job over a data set that can be killed and started again: python -m tests.ray.data_job ADDRESS FOLDER MODEL"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import ray
from ray.data import ActorPoolStrategy, DataContext
from ray.data.checkpoint import CheckpointConfig

from executorch_webgpu.llm import SamplingParams
from executorch_webgpu.ray import predictor


def run(folder: Path, model: dict[str, Any]) -> None:
    """``folder`` has rows.jsonl, and gets answers, checkpoints, and a file for each row that is computed."""
    DataContext.get_current().checkpoint_config = CheckpointConfig(
        "id", str(folder / "checkpoints"), delete_checkpoint_on_success=False
    )

    def params(row: dict[str, Any]) -> SamplingParams:
        with (folder / "computed").open("a") as computed:
            computed.write(f"{row['id']}\n")
        return SamplingParams(max_new_tokens=40)

    rows = ray.data.read_json(str(folder / "rows.jsonl"), override_num_blocks=6)
    made = predictor(params=params, max_rows=16, **model)
    rows = rows.map_batches(made, batch_size=3, compute=ActorPoolStrategy(size=1))
    rows.write_parquet(str(folder / "answers"))


if __name__ == "__main__":
    address, folder, model = sys.argv[1:]
    ray.init(address, logging_level="error", log_to_driver=False)
    run(Path(folder), json.loads(model))
