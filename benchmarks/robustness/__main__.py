"""Compare one setting of pudistill with other systems at every noise level.

    python -m benchmarks.robustness --data ../shared/data          # all cells that have no result
    python -m benchmarks.robustness --only digits --seeds 0 --methods pudistill given_labels
    python -m benchmarks.robustness --summary                      # tables and figure only

All systems get the same splits, seeds and learners. DATA is the folder with ``cifar10-features/``
and ``fashion-mnist/``; cleanlab must be installed. An interrupted command continues where it
stopped (see `benchmarks.common.cells`). Steps that read no noisy label (split, filter, teachers,
training on trusted or true labels, self-training) are computed once for all noises of a problem and
seed.
"""

from benchmarks.common.cells import Cell, compute_and_summarise, options_parser
from benchmarks.common.problems import PROBLEMS
from benchmarks.robustness.report import summarise
from benchmarks.robustness.systems import METHODS, cells_of


def main() -> None:
    parser = options_parser(__doc__, "robustness.json", range(5))
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--levels", nargs="+", type=float, help="grid cells of these levels only")
    options = parser.parse_args()

    def chosen(cell: Cell) -> bool:
        of_level = options.levels is None or cell.noise.level in (0, *options.levels)
        return cell.method in options.methods and of_level

    work = [
        (problem, list(filter(chosen, cells_of(problem, seed))))
        for problem in PROBLEMS
        if problem.name.startswith(tuple(options.only))
        for seed in options.seeds
        if seed < problem.seeds
    ]
    compute_and_summarise(work, METHODS, summarise, options)


if __name__ == "__main__":
    main()
