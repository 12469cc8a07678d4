"""All rows of the speed table, in its order."""

from benchmarks.speed import against, cifar10, ensembles, growth, runs, start, training
from benchmarks.speed.measurement import Row

ROWS: dict[str, Row] = {
    name: value
    for module in (training, ensembles, runs, against, cifar10, growth, start)
    for name, value in vars(module).items()
    if isinstance(value, Row)
}
