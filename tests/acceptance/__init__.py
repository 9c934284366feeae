"""The `landmarks` encoder: a head in FLAME's format fitted to the 68 landmarks of whole clips, on any machine."""

from data_prep.head_fit.clip_fit import ClipFit, LandmarkFitter, SpeakerShape
from data_prep.head_fit.gauss_newton import FitSettings

__all__ = ["ClipFit", "FitSettings", "LandmarkFitter", "SpeakerShape"]
