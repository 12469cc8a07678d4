"""Software versions and the machine, for the record of a run."""

import os
import platform
import sys
from pathlib import Path
from typing import Any


def versions() -> dict[str, str]:
    """Return the versions of Python and of the imported packages that results depend on."""
    used = [name for name in ("pudistill", "numpy", "sklearn", "torch") if name in sys.modules]
    return {"python": platform.python_version()} | {
        name: sys.modules[name].__version__ for name in used
    }


def machine() -> dict[str, Any]:
    """Return the processor, the accelerator if there is one, and the number of cores."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text("utf-8").splitlines() if path.exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    device = names[0] if names else platform.processor()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        device = f"{torch.cuda.get_device_name()} and {device}"
    return {"device": device, "cores": os.cpu_count()}
