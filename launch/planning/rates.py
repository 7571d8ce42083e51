"""The rates that a plan reckons with: assumed, from a file, or measured here."""

from __future__ import annotations

import json
from dataclasses import asdict, fields, replace
from pathlib import Path

import torch

from launch.config.loading import ConfigError
from launch.planning.device_rates import MATRIX_SIZE, STREAM_BYTES, copy_rate, product_rate, stream_rate
from partial_fc.planning.rates import Rates


def read_rates(path: Path, otherwise: Rates) -> Rates:
    """``otherwise`` with what the JSON object in ``path`` says instead. ConfigError for what is no rate."""
    try:
        given = json.loads(path.read_text())
    except OSError as error:
        raise ConfigError(f"cannot read the rates {path}: {error.strerror}") from error
    except ValueError as error:
        raise ConfigError(f"{path} is not JSON: {error}") from error
    names = [field.name for field in fields(Rates)]
    if not isinstance(given, dict) or not set(given) <= set(names):
        raise ConfigError(f"{path}: expected an object with some of the keys {', '.join(names)}")
    for name, value in given.items():
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool) and value > 0
        if not is_number or (name == "ranks_per_machine" and not isinstance(value, int)):
            raise ConfigError(f"{path}: {name} is {value!r}: expected a positive number")
    return replace(otherwise, **given)


def measured_rates(device: torch.device, otherwise: Rates, *, matrix_size: int | None = None) -> Rates:
    """``otherwise`` with products, memory and copies of ``device`` as they are now, at their best within seconds.

    Links are not measured: one process has nobody to talk to; nor is a disk, to which nothing is written.
    """
    size = matrix_size or MATRIX_SIZE[device.type]
    precision = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("high")
        tf32 = product_rate(device, torch.float32, size)
        torch.set_float32_matmul_precision("highest")
        float32 = product_rate(device, torch.float32, size)
    finally:
        torch.set_float32_matmul_precision(precision)
    return replace(
        otherwise,
        float32_operations=float32,
        tf32_operations=max(tf32, float32),
        bfloat16_operations=product_rate(device, torch.bfloat16, size),
        memory_bytes=stream_rate(device, STREAM_BYTES[device.type] // 8),
        copy_bytes=copy_rate(device, STREAM_BYTES[device.type] // 8),
    )


def write_rates(path: Path, rates: Rates) -> None:
    """As :func:`read_rates` reads them."""
    known = {name: value for name, value in asdict(rates).items() if value is not None}
    path.write_text(json.dumps(known, indent=1) + "\n")
