"""The committed quadratic.csv is what its script writes, and holds the quadratic that the script names."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from data_loader.make_quadratic import COEFFICIENTS, NOISE_VARIANCE, NUM_ROWS, PATH, make_rows, write_csv


def test_the_committed_file_is_what_the_script_writes_byte_for_byte(tmp_path: Path) -> None:
    write_csv(tmp_path / "quadratic.csv")
    assert (tmp_path / "quadratic.csv").read_bytes() == PATH.read_bytes()


def test_another_seed_makes_other_rows_of_the_same_number() -> None:
    assert len(make_rows(0)) == len(make_rows(1)) == NUM_ROWS
    assert make_rows(0) == make_rows(0) != make_rows(1)


def test_least_squares_finds_the_coefficients_and_the_noise_within_five_standard_errors() -> None:
    x, y = np.array(make_rows(), dtype=float).T
    assert abs(x).max() <= 3
    powers = np.stack([x**k for k in range(3)], axis=1)
    solution, residuals, *_ = np.linalg.lstsq(powers, y, rcond=None)
    errors = np.sqrt(NOISE_VARIANCE * np.diag(np.linalg.inv(powers.T @ powers)))
    assert (abs(solution - COEFFICIENTS) < 5 * errors).all()
    assert abs(residuals[0] / NUM_ROWS - NOISE_VARIANCE) < 5 * NOISE_VARIANCE * np.sqrt(2 / NUM_ROWS)
