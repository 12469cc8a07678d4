"""Reserved names, in a module that imports nothing, so that `--help` is quick."""

# The default label of samples that are of no class; it is not a class.
NO_CLASS_LABEL = "none of these"
