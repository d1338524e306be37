"""Predict a folder, or a folder on S3, with several processes or machines by Ray Data.

pip install "transfer-learning-kit[ray]"
python apps/predict_with_ray.py runs/pets photos answers --workers 2           # on this machine
RAY_ADDRESS=head:6379 python apps/predict_with_ray.py /shared/pets s3://bucket/photos /shared/answers --workers 64

OUT is a new folder of Parquet files with the columns and rows of `kit predict --out`. On several machines (`ray start`
on each) bundle, images and OUT must have the same path on all of them, or be URLs. Ray starts a batch again whose
worker failed. `kit predict` is faster on one machine, where one process already uses all cores.
"""

import os
from pathlib import Path

from kit import bundle
from kit.cli.predict import find_images
from kit.cli.script import script
from kit.console import say
from kit.files import new_folder


def main(run: Path, images: str, out: Path, workers: int = 2, batch: int = 32):
    """Predict IMAGES with the bundle or run folder RUN into the new folder OUT."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # Ray sends nothing to its makers
    import ray

    predictor = bundle.ray_predictor(run)
    folder = new_folder(out).absolute()
    paths = [{"path": path if "://" in path else os.path.abspath(path)} for path in find_images([images])]  # noqa: PTH100
    ray.init(log_to_driver=False, include_dashboard=False)
    ray.data.DataContext.get_current().execution_options.preserve_order = True
    blocks = max(workers, -(-len(paths) // (8 * batch)))
    answers = ray.data.from_items(paths, override_num_blocks=blocks).map_batches(
        predictor, batch_size=batch, concurrency=workers
    )
    answers.write_parquet(str(folder))
    say(f"{len(paths)} images predicted, written to {out}")


if __name__ == "__main__":
    script(main)
