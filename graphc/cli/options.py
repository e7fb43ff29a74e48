"""Arguments and options that several commands share."""

from __future__ import annotations

import click

from graphc.cli import values

model_argument = click.argument("model", metavar="MODEL")
dims_option = click.option(
    "--dims", "dims", type=values.DIM, multiple=True, metavar="NAME=SIZE", help="Size of a symbolic dimension, e.g. N=8; may be repeated."
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
seed_option = click.option("--seed", type=click.IntRange(0), metavar="N", default=0, show_default=True, help="Seed of random inputs.")
threads_option = click.option("--threads", type=click.IntRange(1), metavar="N", help="Threads; default: one per usable core.")
target_option = click.option(
    "--target", default="host", show_default=True, metavar="NAME", help="Machine level: host, avx512, avx2, sse2, neon."
)
accuracy_option = click.option(
    "--accuracy", type=click.Choice(["default", "exact"]), default="default", show_default=True,
    help="exact: only algorithms that sum in the order of the definition.",
)  # fmt: skip
tune_option = click.option(
    "--tune", is_flag=True, help="Choose how convolutions are computed by timing them here, once; the times stay in the cache."
)
input_option = click.option(
    "--input", "named", type=values.ASSIGNMENT, multiple=True, metavar="NAME=FILE", help="File for one input of the model; may be repeated."
)
