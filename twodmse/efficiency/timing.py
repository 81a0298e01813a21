"""Measuring on the reader's own machine: contenders that take turns on the same work, and memory while work runs."""

import ctypes
import gc
import importlib.util
import math
import os
import platform
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from tqdm.auto import tqdm

from twodmse.encoder.reading import check_count


def take_turns(
    contenders: Mapping[Any, Callable[[int], Any]], rounds: int, warm: int = 1, title: str = "bench"
) -> pd.DataFrame:
    """Seconds each contender takes for the same work, one after the other, round by round in one process.

    Each round begins with another contender, so that none always runs in the wake of the same one.

    Args:
        contenders: name -> function of the round's number, which counts from 0 with the warm rounds.
        rounds: that count.
        warm: rounds before them that do not.
        title: of the progress bar.

    Returns:
        (rounds, contenders) table, one column a contender.

    Raises:
        ValueError: if ``rounds`` is no whole number from 1 up.
    """
    check_count("rounds", rounds)
    names = list(contenders)
    seconds = []
    for number in tqdm(range(warm + rounds), desc=title, unit="round"):
        taken = {}
        start = number % len(names)
        for name in names[start:] + names[:start]:
            begin = time.perf_counter()
            contenders[name](number)
            if torch.accelerator.is_available():
                torch.accelerator.synchronize()
            taken[name] = time.perf_counter() - begin
        seconds.append(taken)
    return pd.DataFrame(seconds[warm:], columns=names)


def half_range(values: pd.Series) -> float:
    """Half the interquartile range: a spread that a few disturbed rounds do not move."""
    return float(np.subtract(*np.percentile(values, [75, 25])) / 2)


def peak_memory(work: Callable[[], Any], device: torch.device | None = None) -> float:
    """The most bytes held at once while ``work`` runs, above what was held before.

    On a CUDA device these are the bytes of tensors there, as torch counts them. On the CPU they are the resident bytes
    of this process as Linux counts them: memory that was freed but not given back is given back first and the
    kernel's high-water mark set to the present, so that what earlier work needed neither hides nor adds anything.

    Args:
        work: what is run.
        device: where the tensors are; None is the CPU.

    Returns:
        Bytes; NaN on a CPU whose system keeps no such count (``/proc``).
    """
    gc.collect()
    if device is not None and device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        work()
        return float(torch.cuda.max_memory_allocated(device) - before)
    try:
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc has it, other C libraries do not
        if trim is not None:
            trim(0)
        Path("/proc/self/clear_refs").write_text("5")  # 5: the high-water mark starts anew (proc(5))
        before = _resident_bytes("VmRSS")
    except OSError:
        work()
        return math.nan
    work()
    return float(max(0, _resident_bytes("VmHWM") - before))


def _resident_bytes(counter: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(f"{counter}:"))


def processor() -> str:
    """The processor's name, as the system tells it."""
    info = Path("/proc/cpuinfo")
    found = re.search(r"^model name\s*: *(.*\S)", info.read_text(), re.MULTILINE) if info.is_file() else None
    name = found[1] if found else platform.processor() or platform.machine()
    return f"{name}, {os.cpu_count()} cores"


def need_peer() -> None:
    """Raise a ValueError that says what to do if sentence-transformers is not installed."""
    if importlib.util.find_spec("sentence_transformers") is None:
        raise ValueError("sentence-transformers is not installed: pip install 'twodmse[peers]', or leave the peer out")
