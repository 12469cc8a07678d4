"""Print the lowest version that pyproject.toml admits of each dependency, as constraints."""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

PYPROJECT = Path(__file__).parents[1] / "pyproject.toml"


def lowest_versions(project: dict) -> Iterator[str]:
    """Yield ``name==version`` for each requirement that has a lower bound."""
    extras = project["optional-dependencies"].values()
    for requirement in [*project["dependencies"], *(each for extra in extras for each in extra)]:
        bound = re.fullmatch(r"([\w.-]+)(?:\[.*\])?>=([\w.]+)", requirement)
        if bound:
            yield f"{bound[1]}=={bound[2]}"


if __name__ == "__main__":
    print("\n".join(lowest_versions(tomllib.loads(PYPROJECT.read_text("utf-8"))["project"])))
