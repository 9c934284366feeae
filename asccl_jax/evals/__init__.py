"""Evaluation of trained models: controlled comparisons, baselines, tables and reports."""
