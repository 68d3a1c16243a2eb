"""Drawings with what makes chest radiographs hard to learn from; a physician would not mistake them for real ones.

All images of a patient share a build and a lung texture: memorizing a patient helps with other images of that patient
only. An image has its own position, exposure and noise. Findings are faint, and the texture resembles some of them.
"""

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

SIDE = 96
# Coordinates from -1 to 1, from top to bottom and from left to right; the heart is on the right.
_ROWS, _COLUMNS = np.mgrid[-1 : 1 : SIDE * 1j, -1 : 1 : SIDE * 1j].astype(np.float32)


class Patient(NamedTuple):
    """What all images of a patient share: factors of the usual sizes, and a lung texture (SIDE, SIDE)."""

    width: float
    height: float
    heart: float
    rib_distance: float
    rib_phase: float
    rib_strength: float
    density: float
    texture: np.ndarray


class _Chest(NamedTuple):
    """The coordinates (SIDE, SIDE) of an image, and the size of its lungs."""

    rng: np.random.Generator
    x: np.ndarray
    y: np.ndarray
    width: float
    height: float

    def centered(self, out: float, down: float) -> tuple[np.ndarray, np.ndarray]:
        """Coordinates relative to a point in a lung, at this distance from the midline and below the center."""
        side = 1 if self.rng.random() < 0.5 else -1
        return self.x - side * out * self.width, self.y - down * self.height


def new_patient(rng: np.random.Generator) -> Patient:
    """Draws a patient."""
    width, height, heart, rib_distance, rib_strength, density = np.exp(rng.normal(0, 0.09, 6))
    texture = smooth_noise(rng, 5) + 0.7 * smooth_noise(rng, 10)
    return Patient(width, height, heart, rib_distance, rng.uniform(0, 2 * np.pi), rib_strength, density, texture)


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
    inflated, heart_size = findings.get("Emphysema", 0.0), patient.heart * (1 + 0.3 * findings.get("Cardiomegaly", 0.0))
    width, height = patient.width * (1 + 0.06 * inflated), patient.height * (1 + 0.1 * inflated)
    lungs = sum(_inside(x - side * 0.43 * width, y + 0.05, 0.31 * width, 0.68 * height) for side in (-1, 1))
    lungs = lungs * _step(0.48 * height - y - 0.1 * np.cos(3 * x), 0.03)
    image = 0.75 * _inside(x, y - 0.3, 0.98 * width, 1.5, softness=0.2)
    image -= lungs * (0.34 + 0.07 * inflated) * patient.density
    image += 0.1 * _step(0.1 - np.abs(x), 0.03)
    heart = _inside(x - 0.13, y - 0.24, 0.3 * heart_size * patient.width, 0.27 * heart_size, softness=0.15)
    image += 0.25 * heart * lungs
    ribs = np.sin(2 * np.pi * (y + 0.35 * x**2) / (0.24 * patient.rib_distance) + patient.rib_phase)
    image += 0.035 * patient.rib_strength * ribs * (0.4 + lungs) + 0.03 * lungs * patient.texture
    for name, strength in findings.items():
        if name in _DRAWN:
            image += strength * lungs * _DRAWN[name](_Chest(rng, x, y, width, height))

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


def _patch(chest: _Chest, *, amplitude: float, smallest: float, largest: float) -> np.ndarray:
    """A soft opacity anywhere in a lung."""
    x, y = chest.centered(chest.rng.uniform(0.3, 0.58), chest.rng.uniform(-0.4, 0.42))
    across, along = chest.rng.uniform(smallest, largest, 2)
    return amplitude * np.exp(-0.5 * ((x / across) ** 2 + (y / along) ** 2))


def _disc(chest: _Chest, *, amplitude: float, radius: float) -> np.ndarray:
    x, y = chest.centered(chest.rng.uniform(0.32, 0.55), chest.rng.uniform(-0.4, 0.35))
    size = radius * chest.rng.uniform(0.8, 1.25)
    return amplitude * _inside(x, y, size, size)


def _bands(chest: _Chest) -> np.ndarray:
    """A line above the diaphragm."""
    x, y = chest.centered(0.4, chest.rng.uniform(0.15, 0.35))
    return 0.12 * np.exp(-0.5 * ((y - 0.15 * x) / 0.03) ** 2) * _step(0.35 - np.abs(x), 0.05)


def _fluid(chest: _Chest) -> np.ndarray:
    """Fluid at the bottom of a lung, higher at the wall."""
    x, y = chest.centered(0.4, chest.rng.uniform(0.25, 0.42))
    return 0.2 * _step(y + 0.25 * np.abs(x), 0.04) * _step(0.4 - np.abs(x), 0.05)


def _air(chest: _Chest) -> np.ndarray:
    """Air between a lung and the wall: dark, in the upper half."""
    x, y = chest.centered(0.4, 0.0)
    return (
        -0.1 * (1 - _inside(x, y - 0.1, 0.25 * chest.width, 0.58)) * _step(0.4 - np.abs(x), 0.05) * _step(0.2 - y, 0.1)
    )


def _rim(chest: _Chest) -> np.ndarray:
    """A bright rim at the wall of a lung, in the lower half."""
    x, y = chest.centered(0.4, 0.0)
    return 0.12 * (1 - _inside(x, y, 0.26 * chest.width, 0.75)) * _step(0.4 - np.abs(x), 0.05) * _step(y + 0.2, 0.1)


def _wings(chest: _Chest) -> np.ndarray:
    """Haze around the roots of both lungs."""
    return 0.1 * np.exp(-0.5 * (((np.abs(chest.x) - 0.28) / 0.16) ** 2 + (chest.y / 0.28) ** 2))


def _net(chest: _Chest) -> np.ndarray:
    """A fine net in the lower parts of both lungs."""
    return 0.04 * smooth_noise(chest.rng, 32) * _step(chest.y - 0.05, 0.15)


def _bubble(chest: _Chest) -> np.ndarray:
    """The stomach behind the heart: a bright ring around a dark disc."""
    x, y = chest.centered(0.2, 0.3)
    distance = np.hypot(x, y) / 0.17
    return 0.15 * np.exp(-0.5 * ((distance - 1) / 0.2) ** 2) - 0.1 * _step(1 - distance, 0.2)


# What each finding adds to the image within the lungs.
_DRAWN: dict[str, Callable[[_Chest], np.ndarray]] = {
    "Atelectasis": _bands,
    "Consolidation": functools.partial(_patch, amplitude=0.2, smallest=0.08, largest=0.16),
    "Edema": _wings,
    "Effusion": _fluid,
    "Fibrosis": _net,
    "Hernia": _bubble,
    "Infiltration": functools.partial(_patch, amplitude=0.24, smallest=0.15, largest=0.35),
    "Mass": functools.partial(_disc, amplitude=0.2, radius=0.15),
    "Nodule": functools.partial(_disc, amplitude=0.18, radius=0.065),
    "Pleural_Thickening": _rim,
    "Pneumonia": functools.partial(_patch, amplitude=0.32, smallest=0.1, largest=0.24),
    "Pneumothorax": _air,
}
