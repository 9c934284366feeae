"""The `landmarks` encoder: a head in FLAME's format fitted to the 68 landmarks of whole clips, on any machine."""

from DECA_torch_bridge.fitting.clip_fit import ClipFit, LandmarkFitter, SpeakerShape
from DECA_torch_bridge.fitting.gauss_newton import FitSettings

__all__ = ["ClipFit", "FitSettings", "LandmarkFitter", "SpeakerShape"]
