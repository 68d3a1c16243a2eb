"""Exports of trained models as folders: one module per format, and the loader of StableHLO exports."""
