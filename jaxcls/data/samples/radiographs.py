"""Drawings with what makes chest radiographs hard to learn from; a physician would not mistake them for real ones.

All images of a patient share a build and a lung texture: memorizing a patient helps with other images of that patient
only. An image has its own position, exposure and noise. Findings are faint, and the texture resembles some of them.
"""

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

SIDE = 96
# Coordinates from -1 to 1, from top to bottom and from left to right; the heart is on the right.
_ROWS, _COLUMNS = np.mgrid[-1 : 1 : SIDE * 1j, -1 : 1 : SIDE * 1j].astype(np.float32)

# The amplitude of opacities and their smallest and largest size; the amplitude of discs and their radius.
_PATCHES = {"Consolidation": (0.2, 0.08, 0.16), "Infiltration": (0.24, 0.15, 0.35), "Pneumonia": (0.32, 0.1, 0.24)}
_DISCS = {"Mass": (0.2, 0.15), "Nodule": (0.18, 0.065)}


class Patient(NamedTuple):
    """What all images of a patient share.

    Attributes:
      factors: of the usual width, height, size of the heart, distance of the ribs, their strength, and density.
      rib_phase: the position of the ribs.
      texture: that of the lungs, (SIDE, SIDE).
    """

    factors: np.ndarray
    rib_phase: float
    texture: np.ndarray


def new_patient(rng: np.random.Generator) -> Patient:
    """Draws a patient."""
    factors = np.exp(rng.normal(0, 0.09, 6))
    texture = smooth_noise(rng, 5) + 0.7 * smooth_noise(rng, 10)
    return Patient(factors, rng.uniform(0, 2 * np.pi), texture)


def radiograph(rng: np.random.Generator, patient: Patient, findings: Mapping[str, float]) -> np.ndarray:
    """Draws an image of a patient, uint8 (SIDE, SIDE).

    Args:
      rng: the source of all that is random.
      patient: whose image it is.
      findings: the strength of each visible finding, 1 being usual; names as in ChestX-ray14.
    """
    scale, tilt = 1 + rng.normal(0, 0.05), rng.normal(0, 0.04)
    right, down = rng.normal(0, 0.05, 2)
    x = (np.cos(tilt) * _COLUMNS - np.sin(tilt) * _ROWS) * scale + right
    y = (np.sin(tilt) * _COLUMNS + np.cos(tilt) * _ROWS) * scale + down

    # An inflated lung is larger and darker.
    inflated = findings.get("Emphysema", 0.0)
    build, height, heart_size, rib_distance, rib_strength, density = patient.factors
    width, height = build * (1 + 0.06 * inflated), height * (1 + 0.1 * inflated)
    heart_size *= 1 + 0.3 * findings.get("Cardiomegaly", 0.0)
    lungs = sum(_inside(x - side * 0.43 * width, y + 0.05, 0.31 * width, 0.68 * height) for side in (-1, 1))
    lungs = lungs * _step(0.48 * height - y - 0.1 * np.cos(3 * x), 0.03)
    image = 0.75 * _inside(x, y - 0.3, 0.98 * width, 1.5, softness=0.2)
    image -= lungs * (0.34 + 0.07 * inflated) * density
    image += 0.1 * _step(0.1 - np.abs(x), 0.03)
    heart = _inside(x - 0.13, y - 0.24, 0.3 * heart_size * build, 0.27 * heart_size, softness=0.15)
    image += 0.25 * heart * lungs
    ribs = np.sin(2 * np.pi * (y + 0.35 * x**2) / (0.24 * rib_distance) + patient.rib_phase)
    image += 0.035 * rib_strength * ribs * (0.4 + lungs) + 0.03 * lungs * patient.texture
    for name, strength in findings.items():
        image += strength * lungs * _drawn(name, rng, x, y, width, height)

    exposure, contrast = rng.normal(0, 0.05), np.exp(rng.normal(0, 0.12))
    image = 0.5 + exposure + contrast * (image - 0.5) + 0.06 * rng.normal() * _ROWS + 0.05 * rng.normal() * _COLUMNS
    image += rng.normal(0, 0.025, image.shape)
    if rng.random() < 0.5:  # the marker of the left side
        row, column = rng.integers(2, 10), rng.integers(SIDE - 12, SIDE - 6)
        image[row : row + 5, column : column + 4] = 1.0
    return np.rint(255 * image.clip(0, 1)).astype(np.uint8)


def save(path: Path, image: np.ndarray, *, width: int, height: int, mode: str = "L") -> None:
    """Saves an image in this size and mode, in the format of the suffix."""
    from PIL import Image

    Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC).convert(mode).save(path)


def smooth_noise(rng: np.random.Generator, cells: int) -> np.ndarray:
    """Draws noise of mean 0 and variance 1 that varies over 1/cells of the image, float32 (SIDE, SIDE)."""
    coarse = rng.normal(0, 1, (cells, cells))
    weights = _interpolation(cells)
    noise = weights @ coarse @ weights.T
    return ((noise - noise.mean()) / noise.std()).astype(np.float32)


@functools.cache
def _interpolation(cells: int) -> np.ndarray:
    """Weights (SIDE, cells) of a smooth interpolation between cells."""
    distance = np.abs(np.linspace(0, cells - 1, SIDE)[:, None] - np.arange(cells))
    return np.where(distance < 1, 0.5 + 0.5 * np.cos(np.pi * distance), 0.0)


def _step(distance: np.ndarray, softness: float) -> np.ndarray:
    """1 where distance is positive and 0 where it is negative, with a soft edge."""
    return 0.5 + 0.5 * np.tanh(distance / softness)


def _inside(x: np.ndarray, y: np.ndarray, width: float, height: float, softness: float = 0.1) -> np.ndarray:
    """1 within an ellipse with these semi-axes, with a soft edge."""
    return _step(1 - np.hypot(x / width, y / height), softness)


def _drawn(
    name: str, rng: np.random.Generator, x: np.ndarray, y: np.ndarray, width: float, height: float
) -> np.ndarray | float:
    """What a finding adds to an image within the lungs.

    Args:
      name: the finding.
      rng: the source of all that is random.
      x, y: the coordinates (SIDE, SIDE) of the image.
      width, height: the size of its lungs.
    """

    def centered(out: float, down: float) -> tuple[np.ndarray, np.ndarray]:
        """Coordinates relative to a point in a lung, at this distance from the midline and below the center."""
        side = 1 if rng.random() < 0.5 else -1
        return x - side * out * width, y - down * height

    match name:
        case "Consolidation" | "Infiltration" | "Pneumonia":  # a soft opacity anywhere in a lung
            amplitude, smallest, largest = _PATCHES[name]
            x, y = centered(rng.uniform(0.3, 0.58), rng.uniform(-0.4, 0.42))
            across, along = rng.uniform(smallest, largest, 2)
            return amplitude * np.exp(-0.5 * ((x / across) ** 2 + (y / along) ** 2))
        case "Mass" | "Nodule":  # a disc
            amplitude, radius = _DISCS[name]
            x, y = centered(rng.uniform(0.32, 0.55), rng.uniform(-0.4, 0.35))
            size = radius * rng.uniform(0.8, 1.25)
            return amplitude * _inside(x, y, size, size)
        case "Atelectasis":  # a line above the diaphragm
            x, y = centered(0.4, rng.uniform(0.15, 0.35))
            return 0.12 * np.exp(-0.5 * ((y - 0.15 * x) / 0.03) ** 2) * _step(0.35 - np.abs(x), 0.05)
        case "Effusion":  # fluid at the bottom of a lung, higher at the wall
            x, y = centered(0.4, rng.uniform(0.25, 0.42))
            return 0.2 * _step(y + 0.25 * np.abs(x), 0.04) * _step(0.4 - np.abs(x), 0.05)
        case "Pneumothorax":  # air between a lung and the wall: dark, in the upper half
            x, y = centered(0.4, 0.0)
            wall = -0.1 * (1 - _inside(x, y - 0.1, 0.25 * width, 0.58)) * _step(0.4 - np.abs(x), 0.05)
            return wall * _step(0.2 - y, 0.1)
        case "Pleural_Thickening":  # a bright rim at the wall of a lung, in the lower half
            x, y = centered(0.4, 0.0)
            return 0.12 * (1 - _inside(x, y, 0.26 * width, 0.75)) * _step(0.4 - np.abs(x), 0.05) * _step(y + 0.2, 0.1)
        case "Edema":  # haze around the roots of both lungs
            return 0.1 * np.exp(-0.5 * (((np.abs(x) - 0.28) / 0.16) ** 2 + (y / 0.28) ** 2))
        case "Fibrosis":  # a fine net in the lower parts of both lungs
            return 0.04 * smooth_noise(rng, 32) * _step(y - 0.05, 0.15)
        case "Hernia":  # the stomach behind the heart: a bright ring around a dark disc
            x, y = centered(0.2, 0.3)
            distance = np.hypot(x, y) / 0.17
            return 0.15 * np.exp(-0.5 * ((distance - 1) / 0.2) ** 2) - 0.1 * _step(1 - distance, 0.2)
    return 0.0
