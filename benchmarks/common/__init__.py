"""What the benchmarks share: data sets, cells that resume, memory, and facts about a run."""
